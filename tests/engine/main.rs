//! Prints the engine's table; `ci/engine-table` calls it.

use std::process::ExitCode;

use netfront_tests::engine::parameters::Parameters;
use netfront_tests::engine::table;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let json = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => false,
        ["--json"] => true,
        _ => {
            eprintln!("usage: engine-table [--json]");
            return ExitCode::from(64);
        }
    };
    let parts = table::all(&Parameters::committed());
    match json {
        true => println!("{:#}", table::json(&parts)),
        false => print!("{}", table::text(&parts)),
    }
    ExitCode::SUCCESS
}
