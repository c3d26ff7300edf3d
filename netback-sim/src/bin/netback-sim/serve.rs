//! `netback-sim serve`: builds the backend out of the arguments and watches over it.

use std::error::Error;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hypervisor::sim::server;
use netback_sim::peer::{Capture, Echo, Pace, Peer, Replay, Sink, Source, TapPeer};
use netback_sim::traffic::Generator;
use netback_sim::{Backend, BackendHandle, Config, Features, Toolstack};
use netfront_tap::{Tap, TapOptions};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::args::{Serve, SimulatedXen, FAILED, FAULT, NOT_CLEAN};
use crate::ground;
use crate::report::{Progress, Report, SCHEMA};

/// How often it is looked whether the guest still takes the last frames.
const TICK: Duration = Duration::from_millis(50);
/// The guest gets so long for the last frames after the peer has made them all.
const LAST_FRAMES: Duration = Duration::from_secs(1);

/// Serves one vif.
pub fn run(arguments: &Serve) -> Result<ExitCode, Box<dyn Error>> {
    let (stop, signals) = stop_signals()?;
    let Some(ground) = ground::find(arguments, &stop)? else {
        return Ok(ExitCode::SUCCESS);
    };
    let config = Config {
        handle: arguments.vif.handle,
        features: features(arguments)?,
        toolstack: ground.domain.is_simulated().then_some(ground.vif),
        reach: arguments.reach,
        stagger: !arguments.no_stagger,
        spin: Duration::from_micros(arguments.spin),
        strict: !arguments.lenient,
        rx_stall_timeout: Duration::from_secs(arguments.rx_stall_timeout),
        // A TAP is made here, before the backend shows InitWait: then the toolstack's script looks for it.
        ..Config::new(ground.frontend, peer(arguments, &ground.vif)?)
    };
    let backend = Backend::start(&ground.domain, config)?;
    let begun = Instant::now();
    watch(&backend, arguments, &stop, &signals)?;
    let (fault, state) = (backend.fault(), backend.state());
    let summary = backend.stop()?;
    let crossed = ground.domain.counters();
    let report = Report {
        schema: SCHEMA,
        seconds: begun.elapsed().as_secs_f64(),
        state,
        fault,
        counters: summary.counters,
        hypercalls: crossed.hypercalls,
        system_calls: crossed.system_calls,
        verified: summary.verified,
        peer_dropped: summary.peer_dropped,
    };
    report.print(arguments.json)?;
    Ok(ExitCode::from(if report.fault.is_some() {
        FAULT
    } else if report.verified.is_some_and(|counts| !counts.is_clean()) {
        NOT_CLEAN
    } else {
        0
    }))
}

/// Is the simulated Xen.
pub fn simulated_xen(arguments: &SimulatedXen) -> Result<ExitCode, Box<dyn Error>> {
    // Its own name: whoever kills the backend by name does not mean its hypervisor.
    let _ = rustix::thread::set_name(c"simulated-xen");
    let mut options = server::Options::new();
    if arguments.linger > 0 {
        options = options.linger(Duration::from_secs(arguments.linger));
    }
    server::run(&arguments.sim, options)?;
    Ok(ExitCode::SUCCESS)
}

/// Set by the first SIGINT or SIGTERM, and what is readable then, for who sleeps; the second signal ends the program at once.
fn stop_signals() -> Result<(Arc<AtomicBool>, UnixStream), std::io::Error> {
    let stop = Arc::new(AtomicBool::new(false));
    let (signals, ringer) = UnixStream::pair()?;
    signals.set_nonblocking(true)?;
    for signal in [SIGINT, SIGTERM] {
        let code = i32::from(FAILED);
        signal_hook::flag::register_conditional_shutdown(signal, code, stop.clone())?;
        signal_hook::flag::register(signal, stop.clone())?;
        // Last, since they are called in this order: whoever is woken finds the flag set.
        signal_hook::low_level::pipe::register(signal, ringer.try_clone()?)?;
    }
    Ok((stop, signals))
}

fn features(arguments: &Serve) -> Result<Features, Box<dyn Error>> {
    let mut features = Features::default();
    if let Some(queues) = arguments.vif.queues {
        features.multi_queue_max = queues;
    }
    for name in &arguments.vif.no_feature {
        features.switch_off(name)?;
    }
    Ok(features)
}

fn peer(arguments: &Serve, vif: &Toolstack) -> Result<Box<dyn Peer>, Box<dyn Error>> {
    let pacing = &arguments.pace;
    let pace = Pace {
        rate: pacing.rate,
        burst: pacing.burst,
        count: pacing.count,
    };
    let peer: Box<dyn Peer> = if let Some(sizes) = arguments.peer.generate {
        let generator = Generator::new(sizes, pacing.flows)?
            // From nobody to the guest, which would not look at it otherwise.
            .between([0x02, 0, 0, 0, 0, 0x01], vif.mac.0);
        let source = Source::new(generator, pace);
        Box::new(if arguments.no_verify {
            source.blind()
        } else {
            source
        })
    } else if let Some(file) = &arguments.peer.replay {
        Box::new(Replay::new(file, pace, pacing.repeat)?)
    } else if let Some(name) = &arguments.peer.tap {
        Box::new(TapPeer::new(tap(arguments, name, vif.mtu)?))
    } else if arguments.peer.echo {
        Box::new(Echo::new())
    } else if arguments.no_verify {
        Box::new(Sink::blind())
    } else {
        Box::new(Sink::new())
    };
    Ok(match &arguments.capture {
        Some(file) => Box::new(Capture::new(peer, file)?),
        None => peer,
    })
}

fn tap(arguments: &Serve, name: &str, mtu: u32) -> Result<Tap, netfront_tap::Error> {
    let options = TapOptions {
        name: name.to_owned(),
        ..TapOptions::default()
    };
    let tap = match &arguments.pace.netns {
        Some(namespace) => Tap::open_in_namespace(namespace, options)?,
        None => Tap::open(options)?,
    };
    tap.set_mtu(mtu)?;
    tap.set_up(true)?;
    Ok(tap)
}

/// Returns when it is time to stop. It sleeps until then, unless somebody looks at the progress.
fn watch(
    backend: &BackendHandle,
    arguments: &Serve,
    stop: &AtomicBool,
    mut signals: &UnixStream,
) -> Result<(), std::io::Error> {
    let end = arguments
        .duration
        .and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds)));
    let mut progress = Progress::new(!arguments.quiet && !arguments.json);
    // Frames that the guest has taken when that was last seen to grow, since the peer has finished.
    let mut last: Option<(u64, Instant)> = None;
    while !stop.load(Ordering::Relaxed) && backend.is_running() {
        progress.show(backend);
        let now = Instant::now();
        if end.is_some_and(|end| now >= end) {
            break;
        }
        if backend.peer_finished() {
            let delivered = backend.counters().rx_packets;
            let since = match last {
                Some((before, since)) if before == delivered => since,
                _ => now,
            };
            last = Some((delivered, since));
            if now.duration_since(since) >= LAST_FRAMES {
                break;
            }
        }
        let time = [
            end.map(|end| end.saturating_duration_since(now)),
            progress.pause(),
            last.map(|_| TICK),
        ];
        backend.wait_for_news(signals.as_fd(), time.into_iter().flatten().min())?;
        let _ = signals.read(&mut [0; 16]);
    }
    progress.end();
    Ok(())
}
