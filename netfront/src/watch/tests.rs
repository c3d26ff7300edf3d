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
