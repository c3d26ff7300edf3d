//! The program `netfront`: see `netfront --help`.
//!
//! | file | what is in it |
//! | --- | --- |
//! | `args` | the command line |
//! | `config`, `logging` | the configuration file of `run`; where messages go |
//! | `manager` | what a service manager is told |
//! | `run`, `control` | a vif in service, and the socket at which it is asked and told |
//! | `stats`, `status`, `top` | what a running driver shows |
//! | `capture`, `recording` | its packets as pcap, its rings line by line |
//! | `orders` | `kick`, `pause`, `resume`, `mode`, `affinity`, `stop` |
//! | `metrics` | Prometheus |
//! | `takeover` | `run --take-over` and `confirm`: the vif of an interface that is in use, and back by itself |
//! | `probe` | could a vif be used here, and what mends it? |
//! | `handover`, `sysfs` | `take` and `give`: the vif from the kernel's driver, and back |
//! | `reset` | a vif that a killed driver left connected |
//! | `demo` | verified traffic on a simulated Xen, a row for each policy; `--tap`: the kernel's TCP/IP |
//! | `bench` | the transport beside the limit of the machine |
//! | `generate` | man pages, completions, tables of the documentation |
//! | `output` | tables |

#![deny(unsafe_code)]

mod args;
mod bench;
mod capture;
mod config;
mod consumers;
mod control;
mod demo;
mod failure;
mod generate;
mod ground;
mod handover;
mod judge;
mod logging;
mod manager;
mod metrics;
mod orders;
mod output;
mod probe;
mod recording;
mod reset;
mod run;
mod stats;
mod status;
mod sysfs;
mod takeover;
mod top;
mod udev;

use std::process::ExitCode;

use args::Command;

fn main() -> ExitCode {
    let cli = config::cli();
    logging::start(&cli);
    let done = match cli.command {
        Command::Run(args) => run::run(*args),
        Command::Stats(args) => stats::stats(&args),
        Command::Take(args) => handover::take(&args),
        Command::Give(args) => handover::give(&args),
        Command::Probe(args) => probe::probe(&args),
        Command::Demo(args) => demo::demo(&args),
        Command::Bench(args) => bench::bench(&args),
        Command::Status(args) => status::status(&args),
        Command::Top(args) => top::top(&args),
        Command::Capture(args) => capture::capture(&args),
        Command::Trace(args) => capture::trace(&args),
        Command::Kick(args) => orders::order(&args, "kick"),
        Command::Pause(args) => orders::order(&args, "pause"),
        Command::Resume(args) => orders::order(&args, "resume"),
        Command::Mode(args) => orders::mode(&args),
        Command::Affinity(args) => orders::affinity(&args),
        Command::Stop(args) => orders::order(&args, "stop"),
        Command::Confirm(args) => takeover::confirm::confirm(&args),
        Command::Reset(args) => reset::reset(&args),
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
            tracing::error!("{}", failure.told());
            ExitCode::from(failure.code())
        }
    }
}
