//! The command line: only types, so that man pages and completions can be made from them.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use netback_sim::traffic::Sizes;
use netfront::control::HashKey;
use netfront::engine::moderation::Mode;
use netfront::engine::restart::Policy as RestartLimit;
use netfront::PoolPolicy;

use crate::config::Loaded;
use crate::control::Which;
use crate::generate::Generate;
use crate::logging::LogFormat;
use crate::orders::Cpus;
use crate::reset::Reset;

/// A network frontend for Xen guests in user space, built around a pool of pages granted once.
#[derive(Debug, Parser)]
#[command(
    version,
    propagate_version = true,
    after_help = "Start with `netfront demo` on any machine, with `netfront probe` in a Xen guest.\n\n\
Exit codes: 0 all went well, 1 something failed, 2 wrong usage, 69 not possible on this machine or as it is now, 75 a \
take-over that nobody confirmed, 76 told to end, it ended, but the backend did not let go, 77 this user may not, 78 a \
module, a limit or another setting is missing."
)]
pub struct Cli {
    /// Say more (-v: debug, -vv: trace).
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Say only what went wrong.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// How messages on stderr are written.
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORMAT"
    )]
    pub log_format: LogFormat,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Connect a vif and keep it connected.
    #[command(after_help = "Examples:\n  \
netfront run --vif 0 --tap xn0           the guest's stack uses vif 0 through the TAP xn0\n  \
netfront run --vif 0 --echo              send every packet back\n  \
netfront run --sim /tmp/xen --tap xn0    the same on a simulated Xen (see netback-sim serve --help)\n  \
netfront run --vif 0 --take-over         the vif of an interface that is in use, ssh session and all\n\n\
A vif that the kernel's own driver has is refused, unless --take-over: then the TAP gets the name, MAC, MTU, addresses, \
routes and neighbours of its interface, and the kernel's driver gets the vif back with all that at the end: on SIGINT or \
SIGTERM, if it cannot connect, if this process or its child is killed, and if `netfront confirm` does not come within \
60 s (exit code 75); a driver that stands still then is killed. Refused, with the command that takes it down: an \
interface that is part of a bridge, a bond or a VRF, that VLANs or tunnels are built on, or that has an XDP program or \
filters of clsact or ingress. Not moved: queueing disciplines of its own (a warning names them), settings below \
/proc/sys/net, rules of nftables by its number (iif, oif; those by name stay). A DHCP client that watches the \
interface may have to be started again.\n\n\
SIGINT and SIGTERM end it cleanly.")]
    Run(Box<Run>),
    /// Show the counters of a running driver.
    #[command(after_help = "Examples:\n  \
netfront stats --vif 0                   as ethtool -S prints them\n  \
netfront stats --vif 0 --json            with the state of the vif and of the process\n  \
netfront stats --explain                 what each counter means")]
    Stats(Stats),
    /// Take a vif from the kernel's driver, so that `run` may have it.
    #[command(after_help = "Examples:\n  \
netfront take --vif 1 && netfront run --vif 1 --tap xn1\n  \
netfront give --vif 1                    the kernel's driver has it again\n\n\
Taking a vif takes its network interface (eth1) away, with its addresses and routes. An interface that is up is \
refused unless --force: it may be the one that your ssh session comes through. The kernel's driver waits for its \
backend when it lets go, in some kernels for ever; --deadline says when to report that.\n\n\
To leave a vif to netfront from the start, keep the kernel's driver from loading (modprobe.blacklist=xen_netfront; \
if it is built in: initcall_blacklist=netif_init), which leaves it all vifs.")]
    Take(Take),
    /// Give a vif back to the kernel's driver.
    #[command(after_help = "Example:\n  netfront give --vif 1\n\n\
Also after a crash: what a dead driver left behind is closed first, and the interface gets back what a take-over moved \
away; what the kernel refuses of that is named and kept for another attempt. A driver that runs must be stopped before.")]
    Give(Give),
    /// Look whether a vif could be used here, say what is missing and what mends it.
    #[command(after_help = "Examples:\n  \
netfront probe                           looks, and changes nothing\n  \
netfront probe --fix                     loads modules, mounts xenfs, raises gntalloc's limit, takes an idle vif\n\n\
The first word of a line says what kind of thing is in the way; exit codes:\n  \
0   ok: nothing, though there may be a `warning`\n  \
69  missing, in use: no Xen, no such vif, a backend that cannot be used, a vif that somebody has\n  \
77  rights: this user may not open a device node or make a TAP\n  \
78  setting: a module, a library or a limit is missing; --fix helps with most\n\n\
Of several, rights come first, then settings. Off Xen only that is said: `netfront demo` runs anywhere.")]
    Probe(Probe),
    /// Start a simulated Xen and a backend, and carry verified traffic both ways.
    #[command(after_help = "Examples:\n  \
netfront demo                            every policy in turn, 1500-byte frames\n  \
netfront demo --frames mix --seconds 30\n  \
netfront demo --tap                      the kernel's own TCP/IP across the driver (as root)")]
    Demo(Demo),
    /// Measure the transport between two pinned processes, beside the limit of this machine.
    Bench(Bench),
    /// Show every vif that netfront drives here: both ends, features, pool, rings, process.
    #[command(after_help = "Examples:\n  \
netfront status\n  \
netfront status --vif 0 --json\n  \
netfront status --sim /tmp/xen           drivers on a simulated Xen")]
    Status(crate::status::Status),
    /// Show what every vif carries a second, again and again.
    #[command(after_help = "Examples:\n  \
netfront top                             a table that is redrawn each second; Ctrl-C ends\n  \
netfront top --interval 10 --count 1     one table: rates, wake-ups and CPU use over 10 seconds\n  \
netfront top --engine                    how each queue is received: rounds, limit, events, wake-ups\n  \
netfront top --json | jq .               a line of JSON each second")]
    Top(crate::top::Top),
    /// Write packets of a running driver as pcap, both ways.
    #[command(after_help = "Examples:\n  \
netfront capture --vif 0 | tcpdump -n -r -               packets as they pass\n  \
netfront capture --write vif0.pcap --seconds 60          into a file, for a minute\n  \
netfront capture -w vif0.pcap --snaplen 96 --count 1000  headers of the next 1000 packets\n\n\
Traffic never waits for the file: what is too fast for it is dropped from the capture, and counted. A driver that \
stops completes the file.")]
    Capture(crate::capture::Capture),
    /// Show what stands in the rings of a running driver, a line for each request, response and event.
    #[command(after_help = "Examples:\n  \
netfront trace --vif 0 --count 100\n  \
netfront trace --vif 0 --json --seconds 1 | jq 'select(.ring == \"tx\")'\n\n\
Times are seconds since 1970. A response is shown as it was judged: status is okay, or the reason why its packet \
is dropped. Tracing slows a busy vif down; while nobody traces, all it costs is a look at a flag for each batch.")]
    Trace(crate::capture::Trace),
    /// Have a running driver notify its backend now, and look at the rings.
    #[command(after_help = "Example:\n  netfront kick --vif 0\n\n\
For a vif that stands still although both ends are connected: it helps where an event was lost. A driver that waits for its \
backend tries to connect now: it does so by itself when the backend shows another state, and each minute.")]
    Kick(crate::orders::Order),
    /// Have a running driver leave packets where they are, both ways, until `resume`.
    #[command(
        after_help = "Example:\n  netfront pause --vif 0; netfront resume --vif 0\n\n\
The connection stays. The rings fill up, and whoever sends has to wait, or loses packets."
    )]
    Pause(crate::orders::Order),
    /// End a pause.
    Resume(crate::orders::Order),
    /// Show or change how a running driver learns of packets: interrupt, adaptive or poll.
    #[command(after_help = "Examples:\n  \
netfront mode                            which one it is\n  \
netfront mode poll --vif 0               look without end: the least latency, for a whole CPU\n  \
netfront mode adaptive --vif 0           events while there is little, looks while there is much\n\n\
It holds at once and until the driver ends; `run --mode` says what it starts with.")]
    Mode(crate::orders::ModeOrder),
    /// Show or change the CPUs of a running driver's packet threads, and of their interrupts.
    #[command(after_help = "Examples:\n  \
netfront affinity                        where each queue's thread may run, and ran last\n  \
netfront affinity 2 --queue 1            queue 1 goes to CPU 2, its interrupts too (these as root)\n  \
netfront affinity 0-3                    all queues may use the CPUs 0 to 3\n\n\
It holds at once, also in connections to come, until the driver ends; `run --cpus` says what it starts with. Keep \
irqbalance off the interrupts (evtchn:nfNqN in /proc/interrupts), or it moves them back.")]
    Affinity(crate::orders::AffinityOrder),
    /// Have a running driver say goodbye to its backend and end, as SIGTERM does.
    Stop(crate::orders::Order),
    /// Say that the machine can still be reached: what `run --take-over` took, it keeps.
    #[command(after_help = "Example:\n  netfront confirm --vif 0")]
    Confirm(crate::orders::Order),
    /// Close a vif that a driver left connected when it was killed, and leave it free.
    #[command(after_help = "Examples:\n  \
netfront reset --vif 1 && netfront run --vif 1 --tap xn1\n  \
netfront give --vif 1                    does the same, and gives it to the kernel's driver\n\n\
Refused while a driver has the vif: one of ours that runs, or the kernel's.")]
    Reset(Reset),
    /// Man pages, completions and tables, for packages.
    #[command(hide = true)]
    Generate(Generate),
    /// The simulated Xen: store, grants and event channels.
    #[command(hide = true)]
    SimulatedXen(SimulatedXen),
    /// One frontend of the demo.
    #[command(hide = true)]
    DemoFront(DemoFront),
    /// One backend of the demo.
    #[command(hide = true)]
    DemoBack(DemoBack),
    /// One end of the bench.
    #[command(hide = true)]
    BenchFront(BenchEnd),
    /// The other end of the bench.
    #[command(hide = true)]
    BenchBack(BenchEnd),
}

/// Which Xen: the real one, or a simulated one behind a socket.
#[derive(Debug, Clone, Args)]
pub struct Ground {
    /// Use the simulated Xen at this socket instead of the real one.
    #[arg(long, value_name = "SOCKET")]
    pub sim: Option<PathBuf>,
    /// On the simulated Xen: be the domain with this number.
    #[arg(long, default_value_t = 1, requires = "sim")]
    pub domid: u16,
}

/// A vif, whether somebody drives it or not.
#[derive(Debug, Clone, Args)]
pub struct Target {
    #[command(flatten)]
    pub ground: Ground,
    /// Number of the vif (device/vif/N in the store).
    #[arg(long, default_value_t = 0)]
    pub vif: u32,
}

// In a group, so that whoever names none of them is told of all.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("consumer").args(["tap", "echo", "take_over"]).required(true).multiple(true))]
pub struct Run {
    /// Read what is not said here from this file: TOML, its keys are these flags.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What was read from it.
    #[arg(skip)]
    pub file: Option<Loaded>,
    #[command(flatten)]
    pub ground: Ground,
    /// Number of the vif (device/vif/N in the store).
    #[arg(long, default_value_t = 0)]
    pub vif: u32,
    /// Connect it with this TAP device, which is created [default with --take-over: the name of the interface].
    #[arg(long, value_name = "NAME")]
    pub tap: Option<String>,
    /// Create the TAP in this network namespace.
    #[arg(long, value_name = "NAME", requires = "tap")]
    pub netns: Option<String>,
    /// Instead of a TAP: send every packet back.
    #[arg(long, conflicts_with = "tap")]
    pub echo: bool,
    /// Take the vif from the kernel's driver, with all that its interface has, and give it back at the end.
    #[arg(long, conflicts_with_all = ["echo", "netns"])]
    pub take_over: bool,
    /// Give it back by itself unless `netfront confirm` comes within this time; 0: keep it.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, requires = "take_over",
          value_parser = clap::value_parser!(u64).range(0..=86400))]
    pub confirm_within: u64,
    /// This is the driver that the guardian of a take-over started.
    #[arg(long, hide = true, requires = "take_over")]
    pub taken_over: bool,
    /// Write packets to this pcap file from the start (later: `netfront capture`).
    #[arg(long, value_name = "FILE[,SNAPLEN]")]
    pub capture: Option<String>,
    #[command(flatten)]
    pub metrics: crate::metrics::MetricsOptions,
    /// Answer `netfront status` and others at this socket [default: /run/netfront/vifN.sock, or beside the simulated Xen].
    #[arg(long, value_name = "SOCKET")]
    pub control: Option<PathBuf>,
    #[command(flatten)]
    pub queue: QueueOptions,
    /// Have the backend send only the multicast packets that the TAP listens to; all of them while it is promiscuous.
    #[arg(long, conflicts_with_all = ["echo", "netns"])]
    pub multicast_filter: bool,
    /// Have the backend hash what it sends by this algorithm (over the control ring), and choose the queue by that.
    #[arg(long, value_name = "ALGORITHM", value_parser = ["toeplitz"])]
    pub hash: Option<String>,
    /// Its key: 80 hexadecimal digits [default: the key of Microsoft's verification suite, which everybody knows].
    #[arg(long, value_name = "KEY", requires = "hash")]
    pub hash_key: Option<HashKey>,
    /// The queue of each remainder of the hash by the length of this list, as in 0,1,0,2 [default: spread over all].
    #[arg(long, value_name = "QUEUES", value_delimiter = ',', requires = "hash")]
    pub hash_mapping: Vec<u32>,
    /// How the driver learns of packets: by events (interrupt), by looking (poll, which takes a whole CPU), or by
    /// whichever is cheaper at the time (adaptive). Later: `netfront mode`.
    #[arg(long, value_name = "MODE", default_value_t)]
    pub mode: Mode,
    /// Rounds of packets before the thread sees to anything else: a number, adaptive, time (only the bound of 2 ms), or
    /// burst (as FreeBSD's polling).
    #[arg(long, value_name = "LIMIT", default_value = "adaptive")]
    pub restart_limit: RestartLimit,
    /// CPUs of the packet threads, as in 2-3: one for each queue in turn, also for its interrupts. Later: `netfront
    /// affinity`.
    #[arg(long, value_name = "CPUS")]
    pub cpus: Option<Cpus>,
    /// Seconds that each step of the handshake may take.
    #[arg(long, default_value_t = 10, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub deadline: u64,
    /// Print the counters as JSON at the end.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Clone, Args)]
pub struct QueueOptions {
    /// Queues, each with rings, pages and a thread of its own; fewer where the backend or the limit of shared pages allows no
    /// more [default: one a processor, 8 at most].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub queues: Option<u16>,
    /// What happens to a page after its packet: pool, per-packet, copy-always or no-recycle.
    #[arg(long, default_value_t = PoolPolicy::Pool)]
    pub policy: PoolPolicy,
    /// Packets shorter than this are copied, longer ones keep their pages.
    #[arg(long, value_name = "BYTES", default_value_t = 256)]
    pub threshold: usize,
    /// Pages granted for receiving at the start.
    #[arg(long, value_name = "PAGES", default_value_t = 512, value_parser = clap::value_parser!(u32).range(32..=16384))]
    pub rx_pages: u32,
    /// Pages that receiving may grow to.
    #[arg(long, value_name = "PAGES", default_value_t = 736, value_parser = clap::value_parser!(u32).range(32..=16384))]
    pub rx_limit: u32,
    /// Pages granted for sending.
    #[arg(long, value_name = "PAGES", default_value_t = 256, value_parser = clap::value_parser!(u32).range(32..=16384))]
    pub tx_pages: u32,
    /// Do not trust the backend: copy everything before it is looked at, lend nothing.
    #[arg(long)]
    pub untrusted: bool,
    /// Overwrite the used bytes of a page before it is posted again.
    #[arg(long)]
    pub scrub: bool,
    /// Use one event channel for both directions even if the backend offers two.
    #[arg(long)]
    pub no_split: bool,
    /// Do not ask for packets over several slots (implies --no-gso).
    #[arg(long)]
    pub no_sg: bool,
    /// Do not ask for segments larger than the MTU.
    #[arg(long)]
    pub no_gso: bool,
    /// Do not ask for packets with a blank checksum (implies --no-gso).
    #[arg(long)]
    pub no_csum: bool,
    /// Do not let the backend keep pages mapped, even if it offers to (over the control ring).
    #[arg(long)]
    pub no_grant_mapping: bool,
}

#[derive(Debug, Args)]
pub struct Stats {
    #[command(flatten)]
    pub which: Which,
    /// What each counter means; asks no driver.
    #[arg(long)]
    pub explain: bool,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Probe {
    #[command(flatten)]
    pub target: Target,
    /// Mend what can be mended without harm, and say what was done (as root); it lasts until the guest reboots.
    #[arg(long, conflicts_with = "sim")]
    pub fix: bool,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Take {
    /// Number of the vif (device/vif/N in the store).
    #[arg(long, default_value_t = 0)]
    pub vif: u32,
    /// Even if its network interface is up.
    #[arg(long)]
    pub force: bool,
    /// Seconds that the kernel's driver and the backend may take.
    #[arg(long, default_value_t = 10, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub deadline: u64,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Give {
    #[command(flatten)]
    pub target: Target,
    /// Seconds that the kernel's driver and the backend may take.
    #[arg(long, default_value_t = 10, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub deadline: u64,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Clone, Args)]
pub struct Demo {
    /// Total time, all policies together.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(2..=3600))]
    pub seconds: u64,
    /// Frame sizes: 64, 1500, 9000, any number of bytes from 60 to 65535, 64k or mix.
    #[arg(long, default_value = "1500")]
    pub frames: Sizes,
    /// Only this policy.
    #[arg(long)]
    pub policy: Option<PoolPolicy>,
    /// Write what the frontend receives to this pcap file, with the first policy (slows it down).
    #[arg(long, value_name = "FILE")]
    pub capture: Option<PathBuf>,
    /// The kernel's own TCP/IP across the driver: two network namespaces with a TAP each (needs root).
    #[arg(long, conflicts_with_all = ["frames", "policy", "capture"])]
    pub tap: bool,
    /// With --tap: size of the transfer in MiB.
    #[arg(long, default_value_t = 1024, requires = "tap")]
    pub mib: u64,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Clone, Args)]
pub struct Bench {
    /// Seconds for each row and for each measurement of the limit.
    #[arg(long, default_value_t = 1.0)]
    pub seconds: f64,
    /// Only these sizes (bytes).
    #[arg(long, value_delimiter = ',', default_value = "64,256,1500,4096")]
    pub sizes: Vec<usize>,
    /// Only these policies.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "pool,per-packet,copy-always,no-recycle"
    )]
    pub policies: Vec<PoolPolicy>,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct SimulatedXen {
    #[arg(long)]
    pub sim: PathBuf,
}

#[derive(Debug, Clone, Args)]
pub struct DemoFront {
    #[arg(long)]
    pub sim: PathBuf,
    #[arg(long)]
    pub policy: PoolPolicy,
    #[arg(long)]
    pub frames: Sizes,
    /// Seconds of warm-up.
    #[arg(long)]
    pub warm_up: f64,
    /// Seconds that are counted.
    #[arg(long)]
    pub seconds: f64,
    #[arg(long)]
    pub capture: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub struct DemoBack {
    #[arg(long)]
    pub sim: PathBuf,
    #[arg(long)]
    pub frames: Option<Sizes>,
    #[arg(long)]
    pub tap: Option<String>,
    #[arg(long)]
    pub netns: Option<String>,
    #[arg(long)]
    pub mac: String,
}

#[derive(Debug, Clone, Args)]
pub struct BenchEnd {
    #[arg(long)]
    pub sim: PathBuf,
    #[arg(long)]
    pub size: usize,
    /// `rx` (to the frontend), `tx` (from it).
    #[arg(long)]
    pub direction: String,
    #[arg(long)]
    pub seconds: f64,
    #[arg(long, default_value_t = PoolPolicy::Pool)]
    pub policy: PoolPolicy,
    /// Measure the limit: the same copies over a bare ring.
    #[arg(long)]
    pub limit: bool,
    /// With --limit: prefetch the pages to come.
    #[arg(long)]
    pub prefetch: bool,
}
