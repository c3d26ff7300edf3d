//! `netfront capture` and `netfront trace`: packets of a running driver as pcap, and what stands in its rings.

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::Args;
use serde_json::{json, Value};

use crate::control::Which;
use crate::failure::Failure;
use crate::output::say;
use crate::recording::into;

/// When a recording ends by itself, and where it goes.
#[derive(Debug, Args)]
pub struct Extent {
    /// Write to this file; - is standard output.
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    pub write: PathBuf,
    /// End after so many packets, or lines.
    #[arg(short, long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// End after this time.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    pub seconds: Option<u64>,
}

/// What is captured, and where it goes.
#[derive(Debug, Args)]
pub struct Capture {
    #[command(flatten)]
    pub which: Which,
    #[command(flatten)]
    pub extent: Extent,
    /// Bytes kept of each packet.
    #[arg(short, long, value_name = "BYTES", default_value_t = 65_535,
          value_parser = clap::value_parser!(u32).range(1..=65_535))]
    pub snaplen: u32,
    /// How many packets there were, as JSON: on standard error if the packets go to standard output.
    #[arg(long)]
    pub json: bool,
}

/// What is traced, and where it goes.
#[derive(Debug, Args)]
pub struct Trace {
    #[command(flatten)]
    pub which: Which,
    #[command(flatten)]
    pub extent: Extent,
    /// Lines of JSON.
    #[arg(long)]
    pub json: bool,
}

impl Extent {
    fn to_stdout(&self) -> bool {
        self.write.as_os_str() == "-"
    }

    fn question(&self, command: &str) -> Value {
        json!({ "command": command, "count": self.count, "seconds": self.seconds })
    }

    /// Says how much there was, where it is not in the way.
    fn tell(&self, as_json: bool, reply: &Value, what: &str) {
        let text = match (as_json, reply["recorded"].as_u64()) {
            (true, _) => reply.to_string(),
            (false, Some(recorded)) => format!(
                "{}{recorded} {what}, {} left out since the file was too slow",
                match reply["driver_stopped"] == true {
                    true => "the driver stopped: ",
                    false => "",
                },
                reply["dropped"]
            ),
            (false, None) => "whoever read has gone".into(),
        };
        if self.to_stdout() {
            // Nobody may be left to read that either.
            use std::io::Write as _;
            let _ = writeln!(std::io::stderr(), "{text}");
        } else {
            say!("{text}");
        }
    }
}

/// Captures packets until the limits are reached or a signal comes.
pub fn capture(args: &Capture) -> Result<(), Failure> {
    if args.extent.to_stdout() && std::io::stdout().is_terminal() {
        return Err(Failure::Verdict(
            "packets are not for a terminal: --write FILE, or pipe it into `tcpdump -r -`".into(),
        ));
    }
    let mut question = args.extent.question("capture");
    question["snaplen"] = args.snaplen.into();
    let reply = into(&args.extent.write, &args.which, &question)?;
    args.extent.tell(args.json, &reply, "packets captured");
    Ok(())
}

/// Traces the rings until the limits are reached or a signal comes.
pub fn trace(args: &Trace) -> Result<(), Failure> {
    let mut question = args.extent.question("trace");
    question["json"] = args.json.into();
    let reply = into(&args.extent.write, &args.which, &question)?;
    args.extent.tell(args.json, &reply, "lines");
    Ok(())
}
