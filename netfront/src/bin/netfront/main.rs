//! The program `netfront`: see `netfront --help`.
//!
//! | file | what is in it |
//! | --- | --- |
//! | `args` | the command line |
//! | `config`, `logging` | the configuration file of `run`; where messages go |
//! | `manager` | what a service manager is told |
//! | `run`, `control` | a vif in service, and the socket that answers `stats` |
//! | `probe` | could a vif be used here? |
//! | `handover`, `sysfs` | `take` and `give`: the vif from the kernel's driver, and back |
//! | `demo` | verified traffic on a simulated Xen, a row for each policy; `--tap`: the kernel's TCP/IP |
//! | `bench` | the transport beside the limit of the machine |
//! | `generate` | man pages, completions, tables of the documentation |
//! | `output` | tables |

#![deny(unsafe_code)]

mod args;
mod bench;
mod config;
mod control;
mod demo;
mod failure;
mod generate;
mod ground;
mod handover;
mod logging;
mod manager;
mod output;
mod probe;
mod run;
mod sysfs;

use std::process::ExitCode;

use args::Command;

fn main() -> ExitCode {
    let cli = config::cli();
    logging::start(&cli);
    let done = match cli.command {
        Command::Run(args) => run::run(args),
        Command::Stats(args) => control::show(&args),
        Command::Take(args) => handover::take(&args),
        Command::Give(args) => handover::give(&args),
        Command::Probe(args) => probe::probe(&args),
        Command::Demo(args) => demo::demo(&args),
        Command::Bench(args) => bench::bench(&args),
        Command::Generate(args) => generate::generate(&args),
        Command::SimulatedXen(args) => ground::simulated_xen(&args.sim),
        Command::DemoFront(args) => demo::front::front(&args),
        Command::DemoBack(args) => demo::back::back(&args),
        Command::BenchFront(args) => bench::front::front(&args),
        Command::BenchBack(args) => bench::back::back(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            tracing::error!("{failure}");
            ExitCode::from(failure.code())
        }
    }
}
