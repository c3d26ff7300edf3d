//! The protocol of the store: frames of a 16-byte header and at most 4096 bytes, as
//! `xen/include/public/io/xs_wire.h` and `docs/misc/xenstore.txt` have them. No I/O: client and
//! simulated server both stand on it.

use std::fmt;

use super::{Permission, Rights};
use crate::DomId;

/// Bytes of a header: four numbers of 32 bits, in the byte order of the machine.
pub const HEADER_SIZE: usize = 16;
/// The most bytes that may follow a header.
pub const MAX_PAYLOAD: usize = 4096;
/// The longest path that starts with a slash, without its end mark.
pub const MAX_ABSOLUTE_PATH: usize = 3072;
/// The longest path that does not, without its end mark.
pub const MAX_RELATIVE_PATH: usize = 2048;

/// What a frame asks or answers. An answer has the kind of its question, or [`Kind::ERROR`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Kind(pub u32);

#[allow(missing_docs)] // the names are those of the protocol
impl Kind {
    pub const DIRECTORY: Kind = Kind(1);
    pub const READ: Kind = Kind(2);
    pub const GET_PERMS: Kind = Kind(3);
    pub const WATCH: Kind = Kind(4);
    pub const UNWATCH: Kind = Kind(5);
    pub const TRANSACTION_START: Kind = Kind(6);
    pub const TRANSACTION_END: Kind = Kind(7);
    pub const GET_DOMAIN_PATH: Kind = Kind(10);
    pub const WRITE: Kind = Kind(11);
    pub const MKDIR: Kind = Kind(12);
    pub const RM: Kind = Kind(13);
    pub const SET_PERMS: Kind = Kind(14);
    pub const WATCH_EVENT: Kind = Kind(15);
    pub const ERROR: Kind = Kind(16);
    pub const IS_DOMAIN_INTRODUCED: Kind = Kind(17);
    pub const RESET_WATCHES: Kind = Kind(21);
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it asks or answers.
    pub kind: Kind,
    /// Chosen by who asks; the answer carries it back.
    pub request: u32,
    /// The transaction it belongs to, or 0.
    pub transaction: u32,
    /// What follows the header.
    pub payload: Vec<u8>,
}

impl Message {
    /// The bytes of this frame.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_SIZE + self.payload.len());
        let length = u32::try_from(self.payload.len()).unwrap_or(u32::MAX);
        for number in [self.kind.0, self.request, self.transaction, length] {
            bytes.extend_from_slice(&number.to_ne_bytes());
        }
        bytes.extend_from_slice(&self.payload);
        bytes
    }
}

/// A frame that says it is longer than the protocol allows: whatever follows cannot be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong(pub u32);

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a frame of {} bytes, where at most {MAX_PAYLOAD} are allowed",
            self.0
        )
    }
}

/// Cuts a stream of bytes into frames.
#[derive(Debug, Default)]
pub struct Framer {
    bytes: Vec<u8>,
}

impl Framer {
    /// Takes what has arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame, or `None` while it has not arrived.
    ///
    /// # Errors
    ///
    /// When the stream is no stream of frames. It cannot be used any further.
    pub fn next_message(&mut self) -> Result<Option<Message>, TooLong> {
        let Some((header, rest)) = self.bytes.split_first_chunk::<HEADER_SIZE>() else {
            return Ok(None);
        };
        let number = |at: usize| {
            u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let (kind, request, transaction, length) = (number(0), number(4), number(8), number(12));
        // The length is judged before anything is kept for it: it may say 4 GiB.
        let size = usize::try_from(length).unwrap_or(usize::MAX);
        if size > MAX_PAYLOAD {
            return Err(TooLong(length));
        }
        let Some(payload) = rest.get(..size) else {
            return Ok(None);
        };
        let message = Message {
            kind: Kind(kind),
            request,
            transaction,
            payload: payload.to_vec(),
        };
        self.bytes.drain(..HEADER_SIZE + size);
        Ok(Some(message))
    }
}

/// The strings of a payload, each ended by a zero byte. `None` when the last has no end or one is
/// not text.
pub fn strings(payload: &[u8]) -> Option<Vec<&str>> {
    if payload.is_empty() {
        return Some(Vec::new());
    }
    let payload = payload.strip_suffix(&[0])?;
    payload
        .split(|byte| *byte == 0)
        .map(|part| std::str::from_utf8(part).ok())
        .collect()
}

/// A payload of strings, each ended by a zero byte.
pub fn payload(strings: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for string in strings {
        bytes.extend_from_slice(string.as_bytes());
        bytes.push(0);
    }
    bytes
}

/// A permission as the protocol writes it: a letter and the number of a domain.
pub fn format_permission(permission: Permission) -> String {
    let letter = match permission.rights {
        Rights::None => 'n',
        Rights::Read => 'r',
        Rights::Write => 'w',
        Rights::Both => 'b',
    };
    format!("{letter}{}", permission.domain)
}

/// The permission behind such a string.
pub fn parse_permission(text: &str) -> Option<Permission> {
    let rights = match text.chars().next()? {
        'n' => Rights::None,
        'r' => Rights::Read,
        'w' => Rights::Write,
        'b' => Rights::Both,
        _ => return None,
    };
    Some(Permission {
        domain: DomId(parse_number(&text[1..])?),
        rights,
    })
}

/// A number as the protocol writes it: digits only, where the parsers of the language take a sign.
pub fn parse_number<N: std::str::FromStr>(text: &str) -> Option<N> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

/// Whether this may be a path: of the allowed length and characters, with no empty part.
pub fn is_path(path: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-/_@".contains(&byte);
    let limit = if path.starts_with('/') {
        MAX_ABSOLUTE_PATH
    } else {
        MAX_RELATIVE_PATH
    };
    !path.is_empty()
        && path.len() <= limit
        && path.bytes().all(allowed)
        && !path.contains("//")
        && (path == "/" || !path.ends_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(payload: &[u8]) -> Message {
        Message {
            kind: Kind::WRITE,
            request: 7,
            transaction: 3,
            payload: payload.to_vec(),
        }
    }

    #[test]
    fn a_header_is_four_numbers_and_the_payload_follows() {
        let bytes = message(b"ab").encode();
        assert_eq!(bytes.len(), HEADER_SIZE + 2);
        assert_eq!(bytes[0..4], 11u32.to_ne_bytes());
        assert_eq!(bytes[4..8], 7u32.to_ne_bytes());
        assert_eq!(bytes[8..12], 3u32.to_ne_bytes());
        assert_eq!(bytes[12..16], 2u32.to_ne_bytes());
        assert_eq!(&bytes[16..], b"ab");
    }

    #[test]
    fn a_frame_that_says_it_is_too_long_is_refused_at_its_header() {
        let mut framer = Framer::default();
        let mut bytes = message(b"").encode();
        bytes[12..16].copy_from_slice(&u32::MAX.to_ne_bytes());
        framer.push(&bytes);
        assert_eq!(framer.next_message(), Err(TooLong(u32::MAX)));
    }

    #[test]
    fn a_string_without_an_end_is_not_taken() {
        assert_eq!(strings(b"a\0b"), None);
        assert_eq!(strings(b"a\0b\0"), Some(vec!["a", "b"]));
        assert_eq!(strings(b"\0"), Some(vec![""]));
        assert_eq!(strings(b""), Some(vec![]));
        assert_eq!(strings(b"\xff\0"), None);
    }

    #[test]
    fn a_permission_is_a_letter_and_a_domain() {
        let permission = Permission {
            domain: DomId(12),
            rights: Rights::Both,
        };
        assert_eq!(format_permission(permission), "b12");
        assert_eq!(parse_permission("b12"), Some(permission));
        for wrong in ["", "b", "x1", "r+1", "r-1", "r70000", "ä1", "rä"] {
            assert_eq!(parse_permission(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_path_has_no_empty_part_and_no_strange_character() {
        for good in [
            "/",
            "/a",
            "a/b",
            "@releaseDomain",
            "/local/domain/1/device/vif/0",
        ] {
            assert!(is_path(good), "{good}");
        }
        let long = format!("/{}", "a".repeat(MAX_ABSOLUTE_PATH));
        for wrong in ["", "//", "/a/", "a//b", "a b", "a\0", "ä", long.as_str()] {
            assert!(!is_path(wrong), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_message_comes_out_as_it_went_in_however_it_is_cut(
            payload in prop::collection::vec(any::<u8>(), 0..MAX_PAYLOAD),
            cut in 1usize..64,
        ) {
            let sent = message(&payload);
            let mut framer = Framer::default();
            let mut got = Vec::new();
            let twice = [sent.encode(), sent.encode()].concat();
            for part in twice.chunks(cut) {
                framer.push(part);
                while let Some(message) = framer.next_message().unwrap() {
                    got.push(message);
                }
            }
            prop_assert_eq!(got, vec![sent.clone(), sent]);
        }

        #[test]
        fn any_bytes_are_frames_or_an_error_but_never_a_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..8192),
        ) {
            let mut framer = Framer::default();
            framer.push(&bytes);
            let mut frames = 0;
            while let Ok(Some(message)) = framer.next_message() {
                prop_assert!(message.payload.len() <= MAX_PAYLOAD);
                let _ = strings(&message.payload);
                frames += 1;
            }
            prop_assert!(frames <= bytes.len() / HEADER_SIZE);
        }

        #[test]
        fn any_text_is_a_permission_or_none(text in ".{0,12}") {
            if let Some(permission) = parse_permission(&text) {
                prop_assert_eq!(parse_permission(&format_permission(permission)), Some(permission));
            }
            let _ = is_path(&text);
        }
    }
}
