//! Where messages go: text for people, with the levels that journald reads when it listens, or JSON.

use std::fmt;
use std::io::{stderr, IsTerminal};
use std::sync::OnceLock;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::{Format, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::Registry;

use crate::args::Cli;

/// How messages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// A line for people; under journald with its levels, and without the time, which it knows.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Changes the level while the program runs.
static LEVEL: OnceLock<Handle<LevelFilter, Registry>> = OnceLock::new();

/// Starts logging to stderr as the command line says.
pub fn start(cli: &Cli) {
    let (level, handle) = reload::Layer::new(level(cli));
    let _ = LEVEL.set(handle);
    let registry = tracing_subscriber::registry().with(level);
    // To say that nothing can be said any more, on a terminal that is gone, would be a panic.
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(stderr)
        .log_internal_errors(false);
    match cli.log_format {
        LogFormat::Json => registry.with(lines.json().with_target(false)).init(),
        LogFormat::Text if journald_listens() => registry
            .with(lines.with_ansi(false).event_format(Journal::new()))
            .init(),
        LogFormat::Text => {
            let lines = lines.with_target(false).with_ansi(stderr().is_terminal());
            registry.with(lines).init();
        }
    }
}

/// From now on says as much as this command line asks for.
pub fn set_level(cli: &Cli) {
    if let Some(handle) = LEVEL.get() {
        // Fails only when the subscriber is gone, and then nothing is said anyway.
        let _ = handle.modify(|now| *now = level(cli));
    }
}

fn level(cli: &Cli) -> LevelFilter {
    match (cli.quiet, cli.verbose) {
        (true, _) => LevelFilter::ERROR,
        (_, 0) => LevelFilter::INFO,
        (_, 1) => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    }
}

/// True if stderr is the stream that journald gave to this process: a redirected one inherits the variable too.
fn journald_listens() -> bool {
    let Ok(named) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    rustix::fs::fstat(stderr())
        .is_ok_and(|found| named == format!("{}:{}", found.st_dev, found.st_ino))
}

/// `<4>message`: journald takes the number for the priority.
struct Journal(Format<Full, ()>);

impl Journal {
    fn new() -> Self {
        Self(
            Format::default()
                .without_time()
                .with_level(false)
                .with_target(false),
        )
    }
}

impl<S, N> FormatEvent<S, N> for Journal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        write!(writer, "<{}>", priority(*event.metadata().level()))?;
        self.0.format_event(context, writer, event)
    }
}

/// syslog(3): 3 error, 4 warning, 6 information, 7 debug.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}
