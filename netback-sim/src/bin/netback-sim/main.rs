//! `netback-sim`: the backend as a program. See `netback-sim serve --help`.
#![deny(unsafe_code)]

mod args;
mod domains;
mod ground;
mod report;
mod serve;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use args::{Arguments, Command};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let default = match &arguments.command {
        Command::Serve(serve) if serve.quiet => "warn",
        _ => "info",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        // It would tell of a reader that is gone by a print to that reader, which panics.
        .log_internal_errors(false)
        .init();
    let result = match arguments.command {
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Domains(arguments) => domains::run(&arguments),
        Command::SimulatedXen(arguments) => serve::simulated_xen(&arguments),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            report::print_error(error.as_ref());
            ExitCode::from(args::FAILED)
        }
    }
}
