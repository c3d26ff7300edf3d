//! `netback-sim domains`: the CPU time of every domain, which is how two drivers are compared on Xen.

use std::error::Error;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use hypervisor::{Domain, DomainInfo};
use serde::Serialize;

use crate::args;
use crate::report::SCHEMA;

/// One domain, as a reader of the JSON finds it.
#[derive(Serialize)]
struct Line {
    domain: u16,
    cpu_ns: u64,
    vcpus: u32,
    memory_bytes: u64,
}

/// Prints every domain of the machine.
pub fn run(arguments: &args::Domains) -> Result<ExitCode, Box<dyn Error>> {
    let domains = Domain::xen()?.list_domains()?;
    let text = match arguments.json {
        true => json(&domains)?,
        false => table(&domains),
    };
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        // A reader that has seen enough (`| head`) is no failure of ours.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn json(domains: &[DomainInfo]) -> Result<String, serde_json::Error> {
    let lines: Vec<Line> = domains
        .iter()
        .map(|domain| Line {
            domain: domain.id.0,
            cpu_ns: u64::try_from(domain.cpu_time.as_nanos()).unwrap_or(u64::MAX),
            vcpus: domain.vcpus,
            memory_bytes: domain.memory_bytes(),
        })
        .collect();
    serde_json::to_string_pretty(&serde_json::json!({ "schema": SCHEMA, "domains": lines }))
}

fn table(domains: &[DomainInfo]) -> String {
    let mut lines = vec!["domain   CPU seconds  vCPUs  memory MiB".to_owned()];
    for domain in domains {
        lines.push(format!(
            "{:>6}  {:>12.6}  {:>5}  {:>10}",
            domain.id,
            domain.cpu_time.as_secs_f64(),
            domain.vcpus,
            domain.memory_bytes() >> 20
        ));
    }
    lines.join("\n")
}
