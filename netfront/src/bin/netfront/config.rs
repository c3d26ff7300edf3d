//! `netfront run --config FILE`: a file whose keys are the flags of `run`.
//!
//! The keys come from the command line's own definition, so there is no second list to keep in step, and a value
//! is judged by the parser of its flag. What the command line says wins, also over a key that it excludes (`--echo`
//! over `tap`). A key that there is not is an error: a misspelt limit that is silently ignored is worse.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory, FromArgMatches};
use toml::de::{DeTable, DeValue};

use crate::args::{Cli, Command as Chosen};

/// What can be changed while the driver runs.
const LIVE: [&str; 2] = ["quiet", "verbose"];
/// Flags of `run` that make no sense in a file.
const NOT_KEYS: [&str; 3] = ["config", "help", "version"];

/// The command line, with what the file of `--config` says added.
pub fn cli() -> Cli {
    read(std::env::args_os().collect()).unwrap_or_else(|error| error.exit())
}

/// A file that was read, for reading it again.
#[derive(Debug, Clone)]
pub struct Loaded {
    path: PathBuf,
    arguments: Vec<OsString>,
    /// As they are in force.
    settings: BTreeMap<String, String>,
}

impl Loaded {
    /// Reads the file again. Gives the command line as it would be now, and the keys that differ from what is in force
    /// and need a restart.
    ///
    /// # Errors
    /// What is wrong with the file; everything stays as it was then.
    pub fn again(&mut self) -> Result<(Cli, Vec<String>), String> {
        let text = |error: clap::Error| error.to_string().trim().to_owned();
        let cli = read(self.arguments.clone()).map_err(text)?;
        let now = match &cli.command {
            Chosen::Run(run) => run.file.as_ref().map(|file| file.settings.clone()),
            _ => None,
        }
        .unwrap_or_default();
        for key in LIVE {
            match now.get(key) {
                Some(value) => self.settings.insert(key.into(), value.clone()),
                None => self.settings.remove(key),
            };
        }
        let mut waiting: Vec<String> = self.settings.keys().chain(now.keys()).cloned().collect();
        waiting.retain(|key| self.settings.get(key) != now.get(key));
        waiting.sort();
        waiting.dedup();
        Ok((cli, waiting))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// A command line, with what its file says.
///
/// # Errors
/// What is wrong with either, for people.
pub fn read(arguments: Vec<OsString>) -> Result<Cli, clap::Error> {
    let mut command = Cli::command();
    command.build();
    // What the command line lacks may be in the file, so it is judged with the file's words only.
    let given = command
        .clone()
        .ignore_errors(true)
        .try_get_matches_from(&arguments);
    let file = given.ok().and_then(|matches| {
        let run = matches.subcommand_matches("run")?;
        let path = run.get_one::<PathBuf>("config")?.clone();
        Some((path, run.clone()))
    });
    let Some((path, given)) = file else {
        return Cli::try_parse_from_command(command, &arguments);
    };
    let run = command.find_subcommand("run").cloned().unwrap_or_default();
    let keys = File::read(&path, &run)?;
    let mut words = arguments.clone();
    words.extend(keys.words(&run, &given)?);
    let mut cli =
        Cli::try_parse_from_command(command, &words).map_err(|error| keys.place(error))?;
    if let Chosen::Run(run) = &mut cli.command {
        let settings = keys.settings.iter();
        run.file = Some(Loaded {
            path,
            arguments,
            settings: settings
                .map(|(key, setting)| (key.clone(), setting.value.clone()))
                .collect(),
        });
    }
    Ok(cli)
}

impl Cli {
    fn try_parse_from_command(
        command: Command,
        arguments: &[OsString],
    ) -> Result<Self, clap::Error> {
        Self::from_arg_matches(&command.try_get_matches_from(arguments)?)
    }
}

/// One line `key = value`.
struct Setting {
    line: usize,
    kind: &'static str,
    value: String,
}

struct File<'a> {
    path: &'a Path,
    settings: BTreeMap<String, Setting>,
}

impl<'a> File<'a> {
    fn read(path: &'a Path, run: &Command) -> Result<Self, clap::Error> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            wrong(format!(
                "reading the configuration file {}: {error}",
                path.display()
            ))
        })?;
        let line_of = |at: usize| 1 + text.bytes().take(at).filter(|&byte| byte == b'\n').count();
        let parsed = DeTable::parse(&text).map_err(|error| {
            let line = error.span().map_or(1, |span| line_of(span.start));
            wrong(format!("{}:{line}: {}", path.display(), error.message()))
        })?;
        let mut settings = BTreeMap::new();
        for (key, value) in parsed.into_inner() {
            let line = line_of(key.span().start);
            let key = key.into_inner();
            if arg(run, &key).is_none() {
                let known = keys(run).collect::<Vec<_>>().join(", ");
                return Err(wrong(format!(
                    "{}:{line}: there is no key {key:?}; the keys are {known}",
                    path.display()
                )));
            }
            let value = value.into_inner();
            let kind = value.type_str();
            let value = match value {
                DeValue::String(text) => text.into_owned(),
                DeValue::Integer(number) => number.as_str().to_owned(),
                DeValue::Float(number) => number.as_str().to_owned(),
                DeValue::Boolean(on) => on.to_string(),
                _ => {
                    return Err(wrong(format!(
                        "{}:{line}: {key} wants one value, found {kind}",
                        path.display()
                    )))
                }
            };
            settings.insert(key.into_owned(), Setting { line, kind, value });
        }
        Ok(Self { path, settings })
    }

    /// The file as words of a command line, without what the command line says itself.
    fn words(&self, run: &Command, given: &ArgMatches) -> Result<Vec<OsString>, clap::Error> {
        let said: Vec<&Arg> = run
            .get_arguments()
            .filter(|arg| {
                given.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine)
            })
            .collect();
        let mut words = Vec::new();
        for (key, setting) in &self.settings {
            let Some(arg) = arg(run, key) else { continue };
            let excluded = said.iter().any(|said| {
                said.get_id() == arg.get_id()
                    || excludes(run, said, arg)
                    || excludes(run, arg, said)
            });
            if excluded {
                continue;
            }
            let wants = |wanted: &str| {
                let Setting { line, kind, value } = setting;
                let path = self.path.display();
                wrong(format!(
                    "{path}:{line}: {key} wants {wanted}, found the {kind} {value:?}"
                ))
            };
            let word = OsString::from(format!("--{key}"));
            match (arg.get_action(), setting.kind) {
                (ArgAction::SetTrue, "boolean") if setting.value == "true" => words.push(word),
                (ArgAction::SetTrue, "boolean") => {}
                (ArgAction::SetTrue, _) => return Err(wants("true or false")),
                (ArgAction::Count, "integer") => {
                    let times = setting.value.parse::<u8>().ok().filter(|&times| times <= 2);
                    let times = times.ok_or_else(|| wants("a number from 0 to 2"))?;
                    words.extend(std::iter::repeat_n(word, times.into()));
                }
                (ArgAction::Count, _) => return Err(wants("a number from 0 to 2")),
                (_, "boolean") => return Err(wants("a value")),
                _ => words.push(format!("--{key}={}", setting.value).into()),
            }
        }
        Ok(words)
    }

    /// Where in the file the fault is, if it is there.
    fn place(&self, error: clap::Error) -> clap::Error {
        let named = match error.get(ContextKind::InvalidArg) {
            Some(ContextValue::String(name)) => name.clone(),
            _ => return error,
        };
        let key = named
            .trim_start_matches('-')
            .split([' ', '='])
            .next()
            .unwrap_or_default();
        let Some(setting) = self.settings.get(key) else {
            return error;
        };
        let text = error.to_string();
        let text = text.split("\n\n").next().unwrap_or_default();
        let text = text.trim_start_matches("error: ");
        wrong(format!("{}:{}: {text}", self.path.display(), setting.line))
    }
}

/// The flags of `run` that a file may have as keys.
pub fn arguments(run: &Command) -> impl Iterator<Item = &Arg> {
    run.get_arguments().filter(|arg| {
        let key = arg.get_long();
        !arg.is_hide_set() && key.is_some_and(|key| !NOT_KEYS.contains(&key))
    })
}

fn keys(run: &Command) -> impl Iterator<Item = &str> {
    arguments(run).filter_map(Arg::get_long)
}

fn arg<'a>(run: &'a Command, key: &str) -> Option<&'a Arg> {
    arguments(run).find(|arg| arg.get_long() == Some(key))
}

fn excludes(run: &Command, one: &Arg, other: &Arg) -> bool {
    run.get_arg_conflicts_with(one)
        .iter()
        .any(|arg| arg.get_id() == other.get_id())
}

fn wrong(text: String) -> clap::Error {
    clap::Error::raw(ErrorKind::InvalidValue, format!("{text}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of `netfront run --config FILE WORDS...`.
    fn with(text: &str, words: &[&str]) -> Result<Cli, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vif0.toml");
        std::fs::write(&path, text).unwrap();
        let mut arguments = vec!["netfront".into(), "run".into(), "--config".into()];
        arguments.push(path.into_os_string());
        arguments.extend(words.iter().map(OsString::from));
        read(arguments).map_err(|error| error.to_string())
    }

    fn run(cli: Cli) -> crate::args::Run {
        match cli.command {
            Chosen::Run(run) => *run,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_file_says_what_the_flags_would() {
        let text = "vif = 3\ntap = \"xn3\"\nuntrusted = true\nno-gso = false\nrx-pages = 640\nverbose = 1\n";
        let cli = with(text, &[]).unwrap();
        assert_eq!(cli.verbose, 1);
        let run = run(cli);
        assert_eq!((run.vif, run.tap.as_deref()), (3, Some("xn3")));
        assert!(run.queue.untrusted && !run.queue.no_gso);
        assert_eq!(run.queue.rx_pages, 640);
    }

    #[test]
    fn the_command_line_wins_also_over_what_it_excludes() {
        let text = "vif = 3\ntap = \"xn3\"\nquiet = true\n";
        let cli = with(text, &["--vif", "4", "--echo", "-v"]).unwrap();
        assert_eq!((cli.quiet, cli.verbose), (false, 1));
        let run = run(cli);
        assert_eq!((run.vif, run.tap, run.echo), (4, None, true));
    }

    #[test]
    fn what_a_flag_needs_may_stand_in_the_file() {
        let run = run(with("tap = \"xn0\"\n", &["--netns", "guest"]).unwrap());
        assert_eq!(run.netns.as_deref(), Some("guest"));
        let error = with("vif = 1\n", &[]).unwrap_err();
        assert!(error.contains("--tap"), "{error}");
    }

    #[test]
    fn an_unknown_key_is_told_with_its_line_and_the_keys_that_there_are() {
        let error = with("vif = 0\n\ntapp = \"xn0\"\n", &[]).unwrap_err();
        assert!(
            error.contains("vif0.toml:3: there is no key \"tapp\""),
            "{error}"
        );
        assert!(
            error.contains("tap, ") && error.contains("rx-pages"),
            "{error}"
        );
        for key in ["config", "help", "version"] {
            let error = with(&format!("{key} = \"x\"\n"), &[]).unwrap_err();
            assert!(error.contains("there is no key"), "{error}");
        }
    }

    #[test]
    fn a_wrong_value_is_told_with_its_line_by_the_parser_of_its_flag() {
        for (text, wanted) in [
            ("echo = true\ndeadline = 9999\n", ":2: invalid value '9999'"),
            (
                "echo = true\ndeadline = true\n",
                ":2: deadline wants a value",
            ),
            (
                "\necho = 1\n",
                ":2: echo wants true or false, found the integer \"1\"",
            ),
            (
                "verbose = 7\necho = true\n",
                ":1: verbose wants a number from 0 to 2",
            ),
            (
                "policy = \"none\"\necho = true\n",
                ":1: invalid value 'none'",
            ),
            ("tap = [\"a\"]\n", ":1: tap wants one value, found array"),
            ("tap = \"a\"\ntap = \"b\"\n", ":2: duplicate key"),
            ("tap = \n", ":1: "),
        ] {
            let error = with(text, &[]).unwrap_err();
            assert!(error.contains(wanted), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = read(
            ["netfront", "run", "--config", "/nonexistent.toml"]
                .map(OsString::from)
                .into(),
        );
        let error = error.unwrap_err().to_string();
        assert!(error.contains("/nonexistent.toml"), "{error}");
    }

    #[test]
    fn reading_again_tells_what_needs_a_restart_and_takes_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vif0.toml");
        std::fs::write(&path, "tap = \"xn0\"\nrx-pages = 512\n").unwrap();
        let mut arguments: Vec<OsString> =
            ["netfront", "run", "--config"].map(OsString::from).into();
        arguments.push(path.clone().into());
        let mut loaded = run(read(arguments).unwrap()).file.unwrap();
        assert_eq!(loaded.again().unwrap().1, Vec::<String>::new());

        std::fs::write(&path, "tap = \"xn1\"\nverbose = 2\nscrub = true\n").unwrap();
        let (cli, waiting) = loaded.again().unwrap();
        assert_eq!(cli.verbose, 2);
        assert_eq!(waiting, ["rx-pages", "scrub", "tap"]);

        std::fs::write(&path, "tap = \"xn1\"\nscrab = true\n").unwrap();
        assert!(loaded.again().unwrap_err().contains("scrab"));
        // What waited for a restart still does, after a mistake too.
        std::fs::write(&path, "tap = \"xn1\"\nrx-pages = 512\n").unwrap();
        assert_eq!(loaded.again().unwrap().1, ["tap"]);
    }
}
