//! `netfront run`: a vif in service.

use std::io::{IsTerminal, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use netfront::control::HashConfig;
use netfront::device::thread_name;
use netfront::engine::moderation::SharedMode;
use netfront::engine::receiver::Tuning;
use netfront::engine::{serve_queues, Service};
use netfront::stats::Snapshot;
use netfront::{Builder, Device, QueueConfig, Wants};
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::args::{QueueOptions, Run};
use crate::config::Loaded;
use crate::consumers::{consumers, Consumers};
use crate::control::{self, Subject};
use crate::failure::{code, Failure};
use crate::ground::{control_socket, domain};
use crate::judge::judge;
use crate::logging;
use crate::manager::Manager;
use crate::metrics;
use crate::output::say;
use crate::recording::Recording;
use crate::takeover::{self, driver::Taken};

/// Queues that a machine of many processors gets without being asked; the kernel's netfront stops there too.
const QUEUES: usize = 8;

/// How many queues are wanted where the command line does not say.
pub fn usual_queues() -> usize {
    std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(QUEUES)
}

impl QueueOptions {
    /// How many queues the command line wants.
    pub fn count(&self) -> usize {
        self.queues.map_or_else(usual_queues, usize::from)
    }

    /// How the command line wants each queue.
    pub fn config(&self) -> QueueConfig {
        QueueConfig {
            rx_pages: self.rx_pages as usize,
            rx_limit: self.rx_limit.max(self.rx_pages) as usize,
            tx_pages: self.tx_pages as usize,
            policy: self.policy,
            threshold: self.threshold,
            untrusted: self.untrusted,
            scrub: self.scrub,
            split_event_channels: !self.no_split,
        }
    }

    /// What the command line wants of the backend.
    pub fn wants(&self) -> Wants {
        Wants {
            sg: !self.no_sg,
            gso: !self.no_gso,
            csum_offload: !self.no_csum,
            grant_mapping: !self.no_grant_mapping,
            ..Wants::default()
        }
    }
}

impl Run {
    /// What the command line wants of the backend.
    fn wants(&self) -> Wants {
        Wants {
            multicast_filter: self.multicast_filter,
            ..self.queue.wants()
        }
    }

    /// The hashes that the command line wants of it.
    fn hash(&self) -> Option<HashConfig> {
        // There is one algorithm.
        self.hash.as_ref()?;
        Some(HashConfig {
            key: self.hash_key.unwrap_or_default(),
            mapping: self.hash_mapping.clone(),
            ..HashConfig::default()
        })
    }
}

/// Each queue gets the next of the CPUs that the command line names.
fn place_threads(args: &Run, service: &Service) -> Result<(), Failure> {
    let cpus = args.cpus.iter().flat_map(|cpus| cpus.list.iter().cycle());
    for (queue, cpu) in (0..args.queue.count()).zip(cpus) {
        let placed = service.place(queue, std::slice::from_ref(cpu));
        placed.map_err(|error| Failure::Verdict(error.to_string()))?;
    }
    Ok(())
}

/// Connects a vif and keeps it connected until a signal.
pub fn run(args: Run) -> Result<(), Failure> {
    judge(&args)?;
    match args.take_over {
        true => takeover::run(args),
        false => drive(args, None),
    }
}

/// The same in this process, for a vif that is free or was `taken` over.
pub fn drive(mut args: Run, taken: Option<&Arc<Taken>>) -> Result<(), Failure> {
    control::started();
    let (bell, held) = Bell::new(args.file.is_some())?;
    let domain = domain(&args.ground)?;
    let _held = match args.ground.sim {
        Some(_) => None,
        None => {
            takeover::not_in_use(args.vif).map_err(Failure::NotHere)?;
            Some(control::hold(args.vif)?)
        }
    };
    let path = args
        .control
        .clone()
        .unwrap_or_else(|| control_socket(args.ground.sim.as_deref(), args.vif));
    // Before anything is created or overwritten.
    control::claim(&path)?;
    make_room(&domain, &args);
    let service = Arc::new(Service::tuned(Tuning {
        mode: SharedMode::new(args.mode),
        policy: args.restart_limit,
        ..Tuning::default()
    }));
    place_threads(&args, &service)?;
    let Consumers {
        first,
        others,
        taps,
    } = consumers(&args, taken)?;
    if let Some(taken) = taken {
        taken.watch(&service)?;
    }
    let subject = Arc::new(Subject {
        vif: args.vif,
        domain: domain.clone(),
        service: Arc::clone(&service),
        taps,
        watch: Arc::default(),
        writers: Arc::default(),
        metrics: OnceLock::new(),
        queue: args.queue.config(),
        wants: args.wants(),
        confirmation: taken.map(|taken| Arc::clone(&taken.confirmation)),
        ringer: bell.ringer()?,
    });
    let capture = args
        .capture
        .as_deref()
        .map(|words| Recording::start(words, &subject.watch))
        .transpose()?;
    let socket = control::serve(&path, Arc::clone(&subject))?;
    let _metrics = metrics::serve(&args.metrics, &subject)?;
    let builder: Builder = Device::builder(args.vif)
        .queues(1 + others.len())
        .queue(args.queue.config())
        .wants(args.wants())
        .hash(args.hash())
        .deadline(Duration::from_secs(args.deadline))
        .interrupt(service.interrupt())
        .watch(Arc::clone(&subject.watch));

    let worker = Arc::clone(&service);
    // The first queue's thread opens the event channel handle: the interrupt carries this name.
    let thread = std::thread::Builder::new()
        .name(thread_name(args.vif, 0))
        .spawn(move || {
            let (mut first, mut others) = (first, others);
            let held = held;
            match builder.connect_counting_each(&domain, Arc::clone(worker.all_stats())) {
                Ok(device) => {
                    // Nobody hears it only when the main thread has gone.
                    let _ = (&held).write(b"c");
                    serve_queues(device, first.as_mut(), &mut others, &worker)
                }
                // Told to stop before it was connected: that is no failure.
                Err(netfront::Error::Interrupted) if worker.stopping() => Ok(()),
                Err(error) => Err(error),
            }
        })
        .map_err(Failure::io("starting the queue's thread"))?;

    let mut progress = Progress::new();
    let mut manager = Manager::new(Duration::from_secs(args.deadline));
    loop {
        let pause = [progress.pause(), manager.pause()]
            .into_iter()
            .flatten()
            .min();
        match bell.wait(pause)? {
            Woken::ThreadEnded => break,
            Woken::Signal => {
                // Before the goodbye: then the TAP has lost its carrier, and soon it is gone.
                if let Some(taken) = taken {
                    taken.renew();
                }
                manager.stopping();
                service.stop();
            }
            Woken::HungUp => {
                manager.reloading();
                args.file.iter_mut().for_each(reload);
                manager.reloaded();
            }
            Woken::Connected => manager.connected(),
            Woken::Timeout => {}
        }
        progress.line(&service);
        manager.look(&service);
    }
    drop(socket);
    let done = thread.join();
    // Now there is nothing more to record: files are completed, and whoever asked for them is told.
    subject.watch.close();
    if let Some(capture) = capture {
        capture.end();
    }
    subject.writers.wait();
    let done = done
        .map_err(|_| Failure::Verdict("the queue's thread panicked: a bug of netfront".into()))?;
    if args.json {
        say!("{:#}", subject.report());
    }
    match done {
        Err(error) if service.stopping() => Err(not_in_order(error.into())),
        done => Ok(done?),
    }
}

/// Whoever told the driver to end does not want it started again, which a service manager does after a mere failure.
fn not_in_order(failure: Failure) -> Failure {
    let text = format!(
        "told to end, it ended, but not in order: {}; its pages are freed, and the next start or `netfront reset` \
         closes what is left",
        failure.told()
    );
    let code = code::NO_GOODBYE;
    Failure::Class { code, text }
}

/// Reads the configuration file again, takes what can be changed while packets pass, and names the rest.
fn reload(file: &mut Loaded) {
    let path = file.path().display().to_string();
    match file.again() {
        Ok((cli, waiting)) => {
            logging::set_level(&cli);
            if waiting.is_empty() {
                tracing::info!("{path} was read again: all of it is in force");
            } else {
                let keys = waiting.join(", ");
                tracing::warn!("{path} was read again; changes of {keys} need a restart");
            }
        }
        Err(error) => tracing::error!("everything stays as it was: {error}"),
    }
}

/// Raises the limit of shared pages if it is below what was asked for and this is allowed. Otherwise the
/// pools are smaller, and say so.
fn make_room(domain: &netfront::hypervisor::Domain, args: &Run) {
    let options = &args.queue;
    let control = match options.no_grant_mapping && args.hash.is_none() {
        true => 0,
        false => netfront::control::PAGES,
    };
    let wanted = options.config().limit_for(options.count(), control);
    if let Ok(Some(limit)) = domain.grant_limit() {
        if limit < wanted {
            match domain.raise_grant_limit(wanted) {
                Ok(()) => tracing::info!("raised gntalloc's limit from {limit} to {wanted} pages"),
                Err(error) => tracing::debug!("the limit stays at {limit} pages: {error}"),
            }
        }
    }
}

/// What wakes the main thread. Nothing polls.
#[derive(Debug, PartialEq, Eq)]
enum Woken {
    Signal,
    HungUp,
    Connected,
    ThreadEnded,
    Timeout,
}

/// Pipes for signals, and one whose other end is held by the queue's thread: it says a byte when it has connected,
/// and when it ends, in whatever way, its end is closed.
struct Bell {
    signals: UnixStream,
    /// The other end, for who rings without a signal.
    ringer: UnixStream,
    hangups: UnixStream,
    /// Kept, or the other end would seem to have been closed.
    _hangup: UnixStream,
    thread: UnixStream,
}

impl Bell {
    /// Installs the signal handlers. The second value is for the thread to hold.
    /// With `reloads` SIGHUP is a wish to read the configuration again; otherwise it ends the program, as ever.
    fn new(reloads: bool) -> Result<(Self, UnixStream), Failure> {
        let failed = || Failure::io("installing signal handlers");
        let (signals, ringer) = UnixStream::pair().map_err(failed())?;
        let (hangups, hangup) = UnixStream::pair().map_err(failed())?;
        let (thread, held) = UnixStream::pair().map_err(failed())?;
        for stream in [&signals, &hangups, &thread] {
            stream.set_nonblocking(true).map_err(failed())?;
        }
        if reloads {
            let ringer = hangup.try_clone().map_err(failed())?;
            signal_hook::low_level::pipe::register(SIGHUP, ringer).map_err(failed())?;
        }
        for signal in [SIGINT, SIGTERM] {
            let ringer = ringer.try_clone().map_err(failed())?;
            signal_hook::low_level::pipe::register(signal, ringer).map_err(failed())?;
        }
        let bell = Self {
            signals,
            ringer,
            hangups,
            _hangup: hangup,
            thread,
        };
        Ok((bell, held))
    }

    /// Whoever writes to it has the driver end, as SIGTERM does.
    fn ringer(&self) -> Result<UnixStream, Failure> {
        self.ringer
            .try_clone()
            .map_err(Failure::io("copying a socket"))
    }

    fn wait(&self, timeout: Option<Duration>) -> Result<Woken, Failure> {
        let timeout = timeout.and_then(|time| Timespec::try_from(time).ok());
        let mut fds = [
            PollFd::new(&self.thread, PollFlags::IN),
            PollFd::new(&self.signals, PollFlags::IN),
            PollFd::new(&self.hangups, PollFlags::IN),
        ];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Failure::io("waiting for signals")(error.into())),
        }
        if !fds[0].revents().is_empty() {
            return Ok(match (&self.thread).read(&mut [0; 16]) {
                Ok(0) | Err(_) => Woken::ThreadEnded,
                Ok(_) => Woken::Connected,
            });
        }
        if !fds[1].revents().is_empty() {
            let _ = (&self.signals).read(&mut [0; 16]);
            return Ok(Woken::Signal);
        }
        if !fds[2].revents().is_empty() {
            let _ = (&self.hangups).read(&mut [0; 16]);
            return Ok(Woken::HungUp);
        }
        Ok(Woken::Timeout)
    }
}

/// A line a second, on a terminal only: a service's log is no place for it.
struct Progress {
    shown: Instant,
    before: Snapshot,
    terminal: bool,
}

impl Progress {
    fn new() -> Self {
        Self {
            shown: Instant::now(),
            before: Snapshot::default(),
            terminal: std::io::stderr().is_terminal(),
        }
    }

    /// How long the main thread may sleep: for ever, unless somebody looks.
    fn pause(&self) -> Option<Duration> {
        self.terminal.then_some(Duration::from_secs(1))
    }

    fn line(&mut self, service: &Service) {
        let elapsed = self.shown.elapsed();
        if !self.terminal || elapsed < Duration::from_millis(900) {
            return;
        }
        let now = service.snapshot();
        let delta = now.since(&self.before);
        let seconds = elapsed.as_secs_f64();
        let rate = |packets: &str, bytes: &str| {
            let packets = delta.get(packets) as f64 / seconds;
            let bits = delta.get(bytes) as f64 * 8.0 / seconds;
            format!("{:>9.0} packets/s {:>8.3} Gbit/s", packets, bits / 1e9)
        };
        let state = if service.link().is_some() {
            "connected"
        } else {
            "waiting for the backend"
        };
        // Cleared to the end of the line, so that a shorter text leaves nothing behind.
        // Nobody reads it any more when the terminal is gone: no reason to panic, as `eprint!` would.
        let mut terminal = std::io::stderr();
        let _ = write!(
            terminal,
            "\r{state}: in {}, out {}\x1b[K",
            rate("rx_packets", "rx_bytes"),
            rate("tx_packets", "tx_bytes")
        );
        let _ = terminal.flush();
        (self.shown, self.before) = (Instant::now(), now);
    }
}
