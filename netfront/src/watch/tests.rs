#![allow(clippy::unwrap_used)]

use std::io::{Read, Seek};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use pcap_file::pcap::PcapReader;

use std::fs::File;

use super::*;

fn record(watch: &Watch, packet: &[u8]) {
    watch.packet(packet.len(), |into| {
        copy_slices(packet.chunks(3), into);
    });
}

fn packets(bytes: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let mut reader = PcapReader::new(bytes).unwrap();
    let mut found = Vec::new();
    while let Some(packet) = reader.next_raw_packet() {
        let packet = packet.unwrap();
        found.push((packet.orig_len, packet.data.into_owned()));
    }
    found
}

#[test]
fn packets_are_written_until_their_number_is_reached() {
    let watch = Arc::new(Watch::default());
    let limits = Limits {
        snaplen: 5,
        count: Some(2),
        time: None,
    };
    let running = watch.capture(limits).unwrap();
    assert!(watch.captures());
    record(&watch, b"first packet");
    record(&watch, b"2nd");
    assert!(!watch.captures(), "there were as many as were wanted");
    record(&watch, b"too late");
    let mut file = tempfile::tempfile().unwrap();
    let totals = running.write_to(&file, None).unwrap();
    assert_eq!((totals.recorded, totals.dropped), (2, 0));
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    let wanted = [(12, b"first".to_vec()), (3, b"2nd".to_vec())];
    assert_eq!(packets(&bytes), wanted);
}

#[test]
fn one_capture_runs_at_a_time_and_another_when_it_is_over() {
    let watch = Arc::new(Watch::default());
    let running = watch.capture(Limits::default()).unwrap();
    assert!(matches!(
        watch.capture(Limits::default()),
        Err(Error::IsRecording { what: "capture" })
    ));
    drop(running);
    assert!(!watch.captures());
    record(&watch, b"to nobody");
    assert!(watch.capture(Limits::default()).is_ok());
}

#[test]
fn a_capture_that_is_stopped_or_out_of_time_writes_what_it_has() {
    let watch = Arc::new(Watch::default());
    let (ours, theirs) = UnixStream::pair().unwrap();
    for by_time in [false, true] {
        let limits = Limits {
            time: by_time.then_some(Duration::from_millis(1)),
            ..Limits::default()
        };
        let running = watch.capture(limits).unwrap();
        record(&watch, b"packet");
        let stop = (!by_time).then(|| ours.as_fd());
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        let file = tempfile::tempfile().unwrap();
        let totals = running.write_to(&file, stop).unwrap();
        assert_eq!((totals.recorded, totals.dropped), (1, 0));
        assert_eq!(file.metadata().unwrap().len(), 24 + 16 + 6);
    }
}

#[test]
fn a_writer_that_is_too_slow_loses_packets_and_says_how_many() {
    let watch = Arc::new(Watch::default());
    let running = watch.capture(Limits::default()).unwrap();
    let packet = vec![7; WHOLE];
    for _ in 0..100 {
        record(&watch, &packet);
    }
    let totals = running.totals();
    assert_eq!(totals.recorded + totals.dropped, 100);
    assert!(
        totals.dropped > 0,
        "4 MiB do not hold 100 packets of 64 KiB"
    );
}

#[test]
fn a_pipe_that_nobody_empties_does_not_catch_the_writer() {
    let watch = Arc::new(Watch::default());
    let running = watch.capture(Limits::default()).unwrap();
    let packet = vec![7; WHOLE];
    for _ in 0..10 {
        record(&watch, &packet);
    }
    let (_reader, writer) = std::io::pipe().unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(theirs);
    let file = File::from(std::os::fd::OwnedFd::from(writer));
    let totals = running.write_to(&file, Some(ours.as_fd())).unwrap();
    assert_eq!(totals.recorded, 10);
    assert!(!watch.captures());
}

#[test]
fn a_reader_that_has_gone_ends_the_capture() {
    let watch = Arc::new(Watch::default());
    let running = watch.capture(Limits::default()).unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let file = File::from(std::os::fd::OwnedFd::from(writer));
    let error = running.write_to(&file, None).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
    assert!(!watch.captures());
}

#[test]
fn a_time_beyond_all_clocks_is_no_limit() {
    let watch = Arc::new(Watch::default());
    let limits = Limits {
        time: Some(Duration::MAX),
        ..Limits::default()
    };
    let running = watch.capture(limits).unwrap();
    record(&watch, b"packet");
    assert!(watch.captures());
    assert_eq!(running.totals().recorded, 1);
}

#[test]
fn a_trace_and_a_capture_run_beside_each_other() {
    let watch = Arc::new(Watch::default());
    let capture = watch.capture(Limits::default()).unwrap();
    let trace = watch.trace(TraceFormat::Text, Limits::default()).unwrap();
    assert!(watch.captures() && watch.traces());
    drop(capture);
    assert!(!watch.captures() && watch.traces());
    watch.event(&Event::new("rx", What::Event));
    assert_eq!(trace.totals().recorded, 1);
}

/// A pipe that nobody empties, and a capture of more than it holds.
fn stuck() -> (Arc<Watch>, File, std::io::PipeReader) {
    let watch = Arc::new(Watch::default());
    let (reader, writer) = std::io::pipe().unwrap();
    (
        watch,
        File::from(std::os::fd::OwnedFd::from(writer)),
        reader,
    )
}

#[test]
fn a_time_that_is_over_ends_a_capture_whose_reader_sleeps() {
    let (watch, file, _reader) = stuck();
    let limits = Limits {
        time: Some(Duration::from_millis(50)),
        ..Limits::default()
    };
    let running = watch.capture(limits).unwrap();
    for _ in 0..10 {
        record(&watch, &vec![7; WHOLE]);
    }
    // In a thread, since what is tested is that it does not stay there for ever.
    let (done, is_done) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(running.write_to(&file, None).unwrap()));
    let totals = is_done.recv_timeout(Duration::from_secs(30)).unwrap();
    assert_eq!(totals.recorded, 10);
    assert!(!watch.captures());
}

#[cfg(feature = "program")]
#[test]
fn signals_are_no_failure_while_a_reader_that_sleeps_is_waited_for() {
    use rustix::process::{kill_process, Signal};

    let (handled, _kept) = UnixStream::pair().unwrap();
    let number = signal_hook::consts::SIGUSR2;
    signal_hook::low_level::pipe::register(number, handled).unwrap();
    let (watch, file, _reader) = stuck();
    let running = watch.capture(Limits::default()).unwrap();
    for _ in 0..10 {
        record(&watch, &vec![7; WHOLE]);
    }
    let (stop, stopped) = UnixStream::pair().unwrap();
    drop(stop);
    let (tell, told) = std::sync::mpsc::channel();
    let writing = std::thread::spawn(move || {
        tell.send(rustix::thread::gettid()).unwrap();
        running.write_to(&file, Some(stopped.as_fd()))
    });
    let writer = told.recv().unwrap();
    while !writing.is_finished() {
        // By the number of a thread: Linux gives it to that one.
        // It may just have ended.
        let _ = kill_process(writer, Signal::USR2);
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(writing.join().unwrap().unwrap().recorded, 10);
}

#[test]
fn a_watch_that_is_closed_has_written_all_there_is_and_starts_nothing_more() {
    let watch = Arc::new(Watch::default());
    let running = watch.capture(Limits::default()).unwrap();
    let file = tempfile::tempfile().unwrap();
    let copy = file.try_clone().unwrap();
    let writing = std::thread::spawn(move || running.write_to(&copy, None).unwrap());
    record(&watch, b"packet");
    watch.close();
    record(&watch, b"too late");
    let totals = writing.join().unwrap();
    assert_eq!((totals.recorded, totals.dropped), (1, 0));
    assert_eq!(file.metadata().unwrap().len(), 24 + 16 + 6);
    for _ in 0..2 {
        assert!(matches!(
            watch.capture(Limits::default()),
            Err(Error::Ending)
        ));
        let trace = watch.trace(TraceFormat::Text, Limits::default());
        assert!(matches!(trace, Err(Error::Ending)));
    }
}

/// What other threads do with recordings must not hold up packets. Here both locks are held the whole time.
#[test]
fn a_queue_takes_no_lock_while_nothing_is_recorded() {
    use hypervisor::sim::server::{self, Options};
    use hypervisor::{DomId, Domain};

    use crate::{Offload, Queue, QueueConfig};

    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("xen");
    let _server = server::spawn(&socket, Options::new()).unwrap();
    let watch = Arc::new(Watch::default());
    // One of each has been, and is over.
    drop(watch.capture(Limits::default()).unwrap());
    drop(watch.trace(TraceFormat::Text, Limits::default()).unwrap());
    let _locked = [Kind::Capture, Kind::Trace].map(|kind| watch.recording(kind));
    let watched = Arc::clone(&watch);
    let (done, is_done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let domain = Domain::simulated(&socket, DomId(1)).unwrap();
        let config = QueueConfig::default();
        let queue = Queue::open(&domain, DomId(0), &config, true, Arc::default());
        let mut queue = queue.unwrap();
        queue.watch_by(watched);
        queue.send(&[&[2; 60]], Offload::default()).unwrap();
        queue.receive(64, |_| {}).unwrap();
        queue.reclaim().unwrap();
        queue.flush().unwrap();
        queue.kick().unwrap();
        queue.take_events().unwrap();
        queue.arm().unwrap();
        done.send(()).unwrap();
    });
    is_done
        .recv_timeout(Duration::from_secs(60))
        .expect("it waits for a lock");
}
