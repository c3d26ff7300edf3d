//! The bytes of requests, responses, extra infos and control messages, as netif.h lays them out.
//!
//! Everything is little-endian, as on all machines on which Xen runs. Decoding never fails: any
//! bytes mean something, and what they mean is judged elsewhere. Encoding sets every byte; pads
//! are zero, so that no old byte of the page stays readable for the peer (XSA-216).

pub(crate) mod control;
pub(crate) mod extra;
pub(crate) mod flags;
pub(crate) mod rx;
pub(crate) mod tx;

/// How a backend answers a transmit request, and what a negative receive status means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// Sent (0).
    Okay,
    /// Not sent, the request was wrong (-1).
    Error,
    /// Not sent, the backend had no room (-2).
    Dropped,
    /// The slot held an extra info; the response's id means nothing (1).
    Null,
    /// A value that is not defined. It ends the request all the same.
    Other(i16),
}

impl Status {
    /// The value in a response.
    #[inline]
    pub const fn to_raw(self) -> i16 {
        match self {
            Status::Okay => 0,
            Status::Error => -1,
            Status::Dropped => -2,
            Status::Null => 1,
            Status::Other(raw) => raw,
        }
    }

    /// The status that a value stands for.
    #[inline]
    pub const fn from_raw(raw: i16) -> Status {
        match raw {
            0 => Status::Okay,
            -1 => Status::Error,
            -2 => Status::Dropped,
            1 => Status::Null,
            other => Status::Other(other),
        }
    }
}

/// Writes fields one after the other over zeroed bytes.
macro_rules! pack {
    ($size:literal; $($offset:literal => $value:expr),+ $(,)?) => {{
        let mut raw = [0u8; $size];
        $({
            let field = $value.to_le_bytes();
            raw[$offset..$offset + field.len()].copy_from_slice(&field);
        })+
        raw
    }};
}
/// Reads one field of a type at an offset.
macro_rules! field {
    ($raw:expr, $offset:literal, u16) => {
        u16::from_le_bytes([$raw[$offset], $raw[$offset + 1]])
    };
    ($raw:expr, $offset:literal, i16) => {
        i16::from_le_bytes([$raw[$offset], $raw[$offset + 1]])
    };
    ($raw:expr, $offset:literal, u32) => {
        u32::from_le_bytes([
            $raw[$offset],
            $raw[$offset + 1],
            $raw[$offset + 2],
            $raw[$offset + 3],
        ])
    };
}
pub(crate) use {field, pack};
