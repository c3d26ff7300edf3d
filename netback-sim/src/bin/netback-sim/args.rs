//! What the program can be told.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand};
use netback_sim::traffic::Sizes;
use netback_sim::{Features, Mac, Reach};

/// Something failed; the message says what.
pub const FAILED: u8 = 1;
/// Frames from the guest were lost, doubled, overtaken or damaged.
pub const NOT_CLEAN: u8 = 3;
/// The guest broke the protocol at least once.
pub const FAULT: u8 = 4;

const EXAMPLES: &str = "\
Examples:
  Serve a guest on the simulated Xen, verify what it sends (the socket is made if need be):
    netback-sim serve --sim /tmp/xen --sink

  Send it a million frames of 64 bytes as fast as it takes them:
    netback-sim serve --sim /tmp/xen --generate 64 --count 1000000

  Send the internet's mix at 100000 frames a second, in bursts of 32, and write all to a file:
    netback-sim serve --sim /tmp/xen --generate mix --rate 100000 --burst 32 --capture all.pcap

  Let its wire end in a TAP in a network namespace, and ping it from there:
    ip netns add back
    netback-sim serve --sim /tmp/xen --tap vif1.0 --netns back &
    ip -n back addr add 10.0.0.1/24 dev vif1.0
    ip netns exec back ping 10.0.0.2

  Serve vif 0 of a guest on Xen, in dom0 or a driver domain without the kernel's netback (the MAC
  and the MTU are the toolstack's; the toolstack's script puts the TAP on its bridge):
    modprobe -r xen-netback
    netback-sim serve --xen --domid 3 --handle 0 --tap vif3.0 &
    xl network-attach GUEST bridge=xenbr0

  Play an old backend: no scatter-gather, one queue, one event channel:
    netback-sim serve --sim /tmp/xen --echo --no-feature sg --no-feature multi-queue \\
      --no-feature split-event-channels

Exit codes:
  0  ended in order (SIGINT, SIGTERM, --duration, --count, or the toolstack took the
     vif away, or the frontend's `state` vanished and --lenient was not given)
  1  something failed; the message says what
  2  the arguments are wrong
  3  frames from the guest were lost, doubled, overtaken or damaged
  4  the guest broke the protocol at least once: its vif was taken down, or it was asked to close";

const DOMAINS: &str = "\
Example, in dom0 as root: what a transfer costs each domain
  netback-sim domains --json >before; iperf3 -c GUEST; netback-sim domains --json >after

A domain's CPU time counts what its vCPUs ran since it was made, with the hypervisor's work on their behalf.
It is read through libxenctrl.so.4.17, which answers only in dom0 and only on that release of Xen.";

/// A netif backend in user space.
#[derive(Debug, Parser)]
#[command(name = "netback-sim", version, about, after_help = EXAMPLES)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve one vif until told to stop (SIGINT or SIGTERM; twice: at once)
    #[command(after_help = EXAMPLES)]
    Serve(Box<Serve>),
    /// Show the CPU time, vCPUs and memory of every domain of the machine (in dom0 of Xen 4.17)
    #[command(after_help = DOMAINS)]
    Domains(Domains),
    /// Be the simulated Xen: started by itself when nobody listens on the socket
    #[command(hide = true)]
    SimulatedXen(SimulatedXen),
}

#[derive(Debug, Args)]
pub struct Domains {
    /// As JSON, with times in nanoseconds and memory in bytes
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct SimulatedXen {
    /// Where to listen
    #[arg(long, value_name = "SOCKET")]
    pub sim: PathBuf,
    /// End when no domain was there for so many seconds; 0: never
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub linger: u64,
}

#[derive(Debug, Args)]
pub struct Serve {
    #[command(flatten)]
    pub ground: Ground,
    /// Stop after so many seconds
    #[arg(long, value_name = "SECONDS")]
    pub duration: Option<u64>,
    /// Look for work so long before sleeping
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 20)]
    pub spin: u64,
    /// How to reach pages that the guest has not announced with grant mapping messages: `copy` is
    /// one grant copy call a batch, `map` maps the pages of a batch and unmaps them again
    #[arg(long, value_name = "copy|map", default_value_t = Reach::Copy)]
    pub reach: Reach,
    /// Take the carrier off, and drop what comes for the guest, when it has posted no pages for a waiting frame for so long;
    /// 0: never
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub rx_stall_timeout: u64,
    /// Start every frame at offset 0 of its page, as the kernel does; slower
    #[arg(long)]
    pub no_stagger: bool,
    /// Forgive what the kernel's netback does not: Initialised (3) counts as Connected, new keys
    /// in state 4 connect anew, a frontend whose `state` vanished may come back, and senseless
    /// states are passed over
    #[arg(long)]
    pub lenient: bool,
    /// Print the final counters as JSON
    #[arg(long)]
    pub json: bool,
    /// No progress, and only warnings
    #[arg(long, short)]
    pub quiet: bool,

    // Options without a heading stand first: a heading holds for all that follow.
    #[command(flatten)]
    pub vif: Vif,
    #[command(flatten)]
    pub peer: Peer,
    #[command(flatten)]
    pub pace: Pacing,

    /// Write all frames, both ways, to a pcap file
    #[arg(long, value_name = "FILE", help_heading = "Other end of the wire")]
    pub capture: Option<PathBuf>,
    /// Do not check the frames that come, for measuring
    #[arg(long, help_heading = "Other end of the wire")]
    pub no_verify: bool,
}

/// Where the guest is.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Ground {
    /// Socket of the simulated Xen; one is started when nobody listens there
    #[arg(long, value_name = "SOCKET")]
    pub sim: Option<PathBuf>,
    /// On Xen, as root. Waits a minute for the toolstack to make the vif
    #[arg(long, requires = "frontend_domid")]
    pub xen: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "The vif, as a toolstack describes it")]
pub struct Vif {
    /// Domain of the guest; simulated, it is 1 unless given
    #[arg(long, value_name = "ID", visible_alias = "domid")]
    pub frontend_domid: Option<u16>,
    /// Which of its vifs
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub handle: u32,
    /// The guest's Ethernet address
    #[arg(
        long,
        value_name = "MAC",
        default_value = "00:16:3e:00:00:01",
        conflicts_with = "xen"
    )]
    pub mac: Mac,
    /// The largest IP packet
    #[arg(long, value_name = "BYTES", default_value_t = 1500, conflicts_with = "xen",
          value_parser = clap::value_parser!(u32).range(68..=65_521))]
    pub mtu: u32,
    /// Whether the guest is told to trust this backend
    #[arg(long, value_name = "0|1", default_value_t = 1, conflicts_with = "xen",
          value_parser = clap::value_parser!(u8).range(0..=1))]
    pub trusted: u8,
    /// Do not offer this feature; may be given more than once
    #[arg(long, value_name = "NAME",
          value_parser = PossibleValuesParser::new(Features::NAMES))]
    pub no_feature: Vec<String>,
    /// Offer so many queues at most [default: one a processor]
    #[arg(long, value_name = "N",
          value_parser = clap::value_parser!(u16).range(1..=64))]
    pub queues: Option<u16>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Other end of the wire")]
#[group(multiple = false)]
pub struct Peer {
    /// Take frames, check and count them (the default)
    #[arg(long)]
    pub sink: bool,
    /// Send back what comes
    #[arg(long)]
    pub echo: bool,
    /// Send verifiable frames of so many bytes (60 to 65535), `mix` or `64k`, and check what comes
    #[arg(long, value_name = "SIZE")]
    pub generate: Option<Sizes>,
    /// Send the frames of a pcap file
    #[arg(long, value_name = "FILE")]
    pub replay: Option<PathBuf>,
    /// Pass frames between the guest and this TAP, which is made
    #[arg(long, value_name = "NAME")]
    pub tap: Option<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Other end of the wire")]
pub struct Pacing {
    /// With --tap: make it in this network namespace
    #[arg(long, value_name = "NAME", requires = "tap")]
    pub netns: Option<String>,
    /// With --generate or --replay: frames a second; 0: as fast as they are taken
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub rate: u64,
    /// With --rate: frames sent in a row
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub burst: u64,
    /// With --generate or --replay: stop after so many frames; 0: never
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub count: u64,
    /// With --generate: number of flows
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub flows: u16,
    /// With --replay: begin again at the end of the file
    #[arg(long = "loop", requires = "replay")]
    pub repeat: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_make_sense() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn one_peer_at_a_time() {
        let parse = |more: &[&str]| {
            let mut all = vec!["netback-sim", "serve", "--sim", "s"];
            all.extend(more);
            Arguments::try_parse_from(all)
        };
        assert!(parse(&["--generate", "mix", "--rate", "5"]).is_ok());
        assert!(parse(&["--sink", "--echo"]).is_err());
        assert!(parse(&["--generate", "59"]).is_err());
        assert!(parse(&["--no-feature", "warp"]).is_err());
        assert!(parse(&["--netns", "x"]).is_err());
    }

    #[test]
    fn on_xen_the_guest_is_named_and_the_toolstack_has_said_the_rest() {
        let parse = |more: &[&str]| {
            let mut all = vec!["netback-sim", "serve"];
            all.extend(more);
            Arguments::try_parse_from(all)
        };
        assert!(parse(&["--xen", "--domid", "3", "--tap", "vif3.0"]).is_ok());
        assert!(parse(&["--xen"]).is_err());
        assert!(parse(&[]).is_err());
        assert!(parse(&["--xen", "--domid", "3", "--sim", "s"]).is_err());
        assert!(parse(&["--xen", "--domid", "3", "--mtu", "9000"]).is_err());
        assert!(parse(&["--sim", "s", "--mtu", "9000"]).is_ok());
    }
}
