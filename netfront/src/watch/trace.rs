//! What stands in the rings, a line for each request, response and notification.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use arrayvec::ArrayVec;
use xen_ring::{Checksum, GsoKind, Offload};

use super::{wall_clock, Kind, Limits, Running, Watch};
use crate::Error;

/// Room for the longest line.
const LINE: usize = 288;

/// How the lines of a trace look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TraceFormat {
    /// For people: `1764005808.995344312 rx response id 7 gref 1042 offset 0 size 1514 flags csum_blank`
    #[default]
    Text,
    /// For programs: the same as a JSON object.
    Json,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// Pushed by us.
    Request,
    /// Read by us.
    Response,
    /// The backend was notified, by an event.
    Notify,
    /// An event came.
    Event,
}

/// One thing that happened. What does not apply is `None`, or empty.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Event<'a> {
    /// `rx`, `tx`, or empty for both.
    pub ring: &'static str,
    pub what: What,
    /// Of several queues.
    pub queue: Option<u16>,
    pub id: Option<u16>,
    pub gref: Option<u32>,
    pub offset: Option<u16>,
    pub size: Option<u16>,
    /// By which the backend chose the queue, of the first slot of a packet that tells it.
    pub hash: Option<u32>,
    /// Names of what is set, of slots that carry a packet.
    pub flags: &'a [&'static str],
    /// Of a response: `okay`, or what is wrong.
    pub status: &'static str,
}

impl Event<'_> {
    pub fn new(ring: &'static str, what: What) -> Self {
        Self {
            ring,
            what,
            queue: None,
            id: None,
            gref: None,
            offset: None,
            size: None,
            hash: None,
            flags: &[],
            status: "",
        }
    }
}

/// The names of the flags of one slot of a packet: what is said of the packet stands in its first.
pub(crate) fn flags_of(offload: &Offload, first: bool, last: bool) -> ArrayVec<&'static str, 4> {
    let mut flags = ArrayVec::new();
    if first {
        match offload.checksum {
            Checksum::None => {}
            Checksum::Blank => flags.push("csum_blank"),
            Checksum::Validated => flags.push("data_validated"),
        }
        match offload.gso.map(|gso| gso.kind) {
            None => {}
            Some(GsoKind::TcpV4) => flags.push("gso_tcpv4"),
            Some(GsoKind::TcpV6) => flags.push("gso_tcpv6"),
        }
        if offload.hash.is_some() {
            flags.push("hash");
        }
    }
    if !last {
        flags.push("more_data");
    }
    flags
}

impl What {
    fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Response => "response",
            Self::Notify => "notify",
            Self::Event => "event",
        }
    }
}

impl Watch {
    /// Starts a trace: a line for all that is pushed to the rings and read from them from now on. It ends when its
    /// limits are reached, or when what is returned is dropped.
    ///
    /// # Errors
    /// [`Error::IsRecording`] while another trace runs, [`Error::Ending`] after [`Self::close`]; without a
    /// descriptor to wake the writer.
    pub fn trace(self: &Arc<Self>, format: TraceFormat, limits: Limits) -> Result<Running, Error> {
        self.start(Kind::Trace, format, &[], limits)
    }

    /// Writes the line of one event.
    #[cold]
    pub(crate) fn event(&self, event: &Event<'_>) {
        let time = wall_clock();
        self.record(
            Kind::Trace,
            |_| LINE,
            |now| {
                let bytes = &mut now.bytes;
                // Writing to memory does not fail.
                let _ = match now.format {
                    TraceFormat::Text => text(bytes, time, event),
                    TraceFormat::Json => json(bytes, time, event),
                };
            },
        );
    }
}

fn numbers(event: &Event<'_>) -> [(&'static str, Option<u32>); 5] {
    [
        ("queue", event.queue.map(u32::from)),
        ("id", event.id.map(u32::from)),
        ("gref", event.gref),
        ("offset", event.offset.map(u32::from)),
        ("size", event.size.map(u32::from)),
    ]
}

fn text(into: &mut Vec<u8>, time: Duration, event: &Event<'_>) -> std::io::Result<()> {
    let (seconds, nanos) = (time.as_secs(), time.subsec_nanos());
    let (ring, what) = (event.ring, event.what.name());
    // Aligned up to the numbers, where there are any.
    let numbered = event.id.is_some() || event.queue.is_some();
    let width = if numbered { 8 } else { 0 };
    write!(into, "{seconds}.{nanos:09} {ring:<2} {what:<width$}")?;
    for (name, value) in numbers(event) {
        if let Some(value) = value {
            write!(into, " {name} {value}")?;
        }
    }
    if let Some(hash) = event.hash {
        // As hashes are written everywhere: in a decimal number nobody would know one again.
        write!(into, " hash {hash:#010x}")?;
    }
    if !event.flags.is_empty() {
        write!(into, " flags ")?;
        for (index, flag) in event.flags.iter().enumerate() {
            let separator = if index > 0 { "," } else { "" };
            write!(into, "{separator}{flag}")?;
        }
    }
    if !event.status.is_empty() {
        write!(into, " status {}", event.status)?;
    }
    writeln!(into)
}

/// By hand, since the names need no escapes and a line must not allocate.
fn json(into: &mut Vec<u8>, time: Duration, event: &Event<'_>) -> std::io::Result<()> {
    let (seconds, nanos) = (time.as_secs(), time.subsec_nanos());
    write!(into, r#"{{"schema":1,"time":{seconds}.{nanos:09}"#)?;
    if !event.ring.is_empty() {
        write!(into, r#","ring":"{}""#, event.ring)?;
    }
    write!(into, r#","what":"{}""#, event.what.name())?;
    for (name, value) in numbers(event) {
        if let Some(value) = value {
            write!(into, r#","{name}":{value}"#)?;
        }
    }
    if let Some(hash) = event.hash {
        write!(into, r#","hash":{hash}"#)?;
    }
    if !event.flags.is_empty() {
        write!(into, r#","flags":["#)?;
        for (index, flag) in event.flags.iter().enumerate() {
            let separator = if index > 0 { "," } else { "" };
            write!(into, r#"{separator}"{flag}""#)?;
        }
        write!(into, "]")?;
    }
    if !event.status.is_empty() {
        write!(into, r#","status":"{}""#, event.status)?;
    }
    writeln!(into, "}}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const TIME: Duration = Duration::new(17, 42);

    fn response() -> Event<'static> {
        Event {
            queue: Some(u16::MAX),
            id: Some(u16::MAX),
            gref: Some(u32::MAX),
            offset: Some(4095),
            size: Some(u16::MAX),
            hash: Some(0x51cc_c178),
            flags: &["data_validated", "gso_tcpv4", "hash", "more_data"],
            status: "unexpected_extra",
            ..Event::new("rx", What::Response)
        }
    }

    #[test]
    fn a_line_names_what_there_is_and_nothing_else() {
        let mut bytes = Vec::new();
        let request = Event {
            id: Some(7),
            gref: Some(1042),
            ..Event::new("rx", What::Request)
        };
        text(&mut bytes, TIME, &request).unwrap();
        text(&mut bytes, TIME, &response()).unwrap();
        text(&mut bytes, TIME, &Event::new("tx", What::Notify)).unwrap();
        let wanted = "\
17.000000042 rx request  id 7 gref 1042
17.000000042 rx response queue 65535 id 65535 gref 4294967295 offset 4095 size 65535 hash 0x51ccc178 flags data_validated,gso_tcpv4,hash,more_data status unexpected_extra
17.000000042 tx notify\n";
        assert_eq!(String::from_utf8(bytes).unwrap(), wanted);
    }

    #[test]
    fn a_json_line_is_an_object() {
        let mut bytes = Vec::new();
        json(&mut bytes, TIME, &response()).unwrap();
        let wanted = r#"{"schema":1,"time":17.000000042,"ring":"rx","what":"response","queue":65535,"id":65535,"gref":4294967295,"offset":4095,"size":65535,"hash":1372373368,"flags":["data_validated","gso_tcpv4","hash","more_data"],"status":"unexpected_extra"}"#;
        assert_eq!(String::from_utf8(bytes).unwrap(), format!("{wanted}\n"));
    }

    #[test]
    fn the_longest_line_has_room() {
        let mut bytes = Vec::new();
        let time = Duration::new(u64::from(u32::MAX), 999_999_999);
        json(&mut bytes, time, &response()).unwrap();
        assert!(bytes.len() <= LINE, "{}", bytes.len());
    }
}
