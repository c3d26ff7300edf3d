//! `netfront generate`: man pages, shell completions and tables for the documentation, all from the definitions that the
//! program itself uses. For packages and for the tests of the documentation.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, Command, CommandFactory, Subcommand};
use clap_complete::Shell;
use clap_mangen::roff::{bold, italic, roman, Roff};

use crate::args::Cli;
use crate::config;
use crate::failure::Failure;
use crate::output::say;
use crate::stats::meanings;

#[derive(Debug, Args)]
pub struct Generate {
    #[command(subcommand)]
    pub what: What,
}

#[derive(Debug, Subcommand)]
pub enum What {
    /// Man pages: one for each command, and one for the configuration file.
    Man(Out),
    /// Completions for bash, zsh and fish.
    Completions(Out),
    /// Every counter with its meaning, as a Markdown table.
    Counters,
    /// Says whether this is a correct command line of netfront, without running it.
    Check {
        /// The command line, with the program's name.
        #[arg(last = true, required = true)]
        words: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub struct Out {
    /// Into this folder.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// Writes what was asked for.
pub fn generate(args: &Generate) -> Result<(), Failure> {
    match &args.what {
        What::Man(Out { out }) => man(out),
        What::Completions(Out { out }) => completions(out),
        What::Counters => {
            say!("{}", counters());
            Ok(())
        }
        What::Check { words } => check(words),
    }
}

/// The commands for users: what the program starts itself is nobody else's business.
fn for_users() -> Command {
    let all = Cli::command();
    let shown = all
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
        .cloned();
    let mut command = Command::new("netfront")
        .args(all.get_arguments().cloned())
        .subcommands(shown)
        .disable_help_subcommand(true)
        .version(env!("CARGO_PKG_VERSION"))
        .propagate_version(true);
    if let Some(about) = all.get_about() {
        command = command.about(about.clone());
    }
    if let Some(help) = all.get_after_help() {
        command = command.after_help(help.clone());
    }
    command
}

fn man(out: &Path) -> Result<(), Failure> {
    let failed = || Failure::io(format!("writing man pages into {}", out.display()));
    fs::create_dir_all(out).map_err(failed())?;
    let mut all = for_users();
    all.build();
    for command in std::iter::once(&all).chain(all.get_subcommands()) {
        let man = clap_mangen::Man::new(command.clone())
            .source(concat!("netfront ", env!("CARGO_PKG_VERSION")))
            .manual("netfront");
        let mut page = Vec::new();
        command_page(&man, command, &mut page).map_err(failed())?;
        fs::write(out.join(man.get_filename()), page).map_err(failed())?;
    }
    fs::write(out.join("netfront.toml.5"), configuration().render()).map_err(failed())
}

/// As clap_mangen orders it, but examples keep their lines.
fn command_page(
    man: &clap_mangen::Man,
    command: &Command,
    page: &mut Vec<u8>,
) -> std::io::Result<()> {
    man.render_title(page)?;
    man.render_name_section(page)?;
    man.render_synopsis_section(page)?;
    man.render_description_section(page)?;
    man.render_options_section(page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(page)?;
    }
    let Some(help) = command.get_after_help() else {
        return Ok(());
    };
    let mut notes = Roff::new();
    notes.control("SH", ["NOTES"]);
    for line in help.to_string().lines() {
        if line.is_empty() {
            notes.control("PP", []);
        } else if let Some(example) = line.strip_prefix("  ") {
            notes.control("nf", []);
            notes.text([roman(format!("  {example}"))]);
            notes.control("fi", []);
        } else {
            notes.text([roman(line)]);
        }
    }
    notes.to_writer(page)
}

/// netfront.toml(5): each key with what its flag says.
fn configuration() -> Roff {
    let mut all = Cli::command();
    all.build();
    let mut page = Roff::new();
    page.control("TH", ["netfront.toml", "5"]);
    page.control("SH", ["NAME"]);
    page.text([roman("netfront.toml - configuration file of netfront run")]);
    page.control("SH", ["DESCRIPTION"]);
    page.text([
        roman("Read by "),
        bold("netfront run --config FILE"),
        roman("; the service "),
        bold("netfront@0"),
        roman(" reads "),
        italic("/etc/netfront/vif0.toml"),
        roman(
            ". The format is TOML, one key = value a line. A flag without a value is true or false. What the command \
             line says wins. An unknown key is an error. On SIGHUP the file is read again: verbose and quiet change at \
             once, and what needs a restart is named in the log.",
        ),
    ]);
    page.control("SH", ["KEYS"]);
    let run = all.find_subcommand("run");
    for arg in run.into_iter().flat_map(config::arguments) {
        page.control("TP", []);
        page.text([bold(arg.get_long().unwrap_or_default())]);
        let default: Vec<_> = arg
            .get_default_values()
            .iter()
            .map(|value| value.to_string_lossy())
            .collect();
        let mut help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        if !default.is_empty() && arg.get_action().takes_values() {
            help.push_str(&format!(" [default: {}]", default.join(",")));
        }
        page.text([roman(help)]);
    }
    page.control("SH", ["EXAMPLE"]);
    for line in ["vif = 0", "tap = \"xn0\"", "rx-pages = 512"] {
        page.text([roman(line)]);
        page.control("br", []);
    }
    page.control("SH", ["SEE ALSO"]);
    page.text([bold("netfront-run"), roman("(1)")]);
    page
}

fn completions(out: &Path) -> Result<(), Failure> {
    let failed = || Failure::io(format!("writing completions into {}", out.display()));
    fs::create_dir_all(out).map_err(failed())?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut for_users(), "netfront", out).map_err(failed())?;
    }
    Ok(())
}

/// The table of docs/operating.md.
fn counters() -> String {
    let mut lines = vec![
        "| counter | meaning |".to_owned(),
        "| --- | --- |".to_owned(),
    ];
    lines.extend(
        meanings()
            .iter()
            .map(|(name, meaning)| format!("| `{name}` | {meaning} |")),
    );
    lines.join("\n")
}

fn check(words: &[String]) -> Result<(), Failure> {
    use clap::error::ErrorKind::{DisplayHelp, DisplayVersion};
    match config::read(words.iter().map(Into::into).collect()) {
        Ok(_) => Ok(()),
        Err(error) if matches!(error.kind(), DisplayHelp | DisplayVersion) => Ok(()),
        Err(error) => Err(Failure::Verdict(format!(
            "`{}` is no command line of netfront: {error}",
            words.join(" ")
        ))),
    }
}
