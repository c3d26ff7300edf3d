//! What a C program sees: plain structs and numbers. No enum is ever taken from C, since C may pass any
//! number for one; such fields are integers, and are judged in `handle.rs`.

use std::ffi::{c_char, c_int, c_void, CStr};

/// What a call answers when it fails. Everything else that a call may answer is 0 or greater.
///
/// netfront_error_text() says what was wanted, what was found and what to do.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// Nothing failed.
    None = 0,
    /// An argument makes no sense, or is NULL.
    Invalid = -1,
    /// There is no Xen here, or no simulated one at that socket, or a device is missing.
    Unavailable = -2,
    /// The domain has no such vif.
    NoVif = -3,
    /// The backend did not move on in time.
    Deadline = -4,
    /// There is no room to send: netfront_flush(), netfront_wait(), and try again.
    Full = -5,
    /// A packet has 1 to 65535 bytes, in at most 18 slots, or the buffer is too small for it.
    Length = -6,
    /// The backend left or broke the contract: netfront_reconnect().
    Broken = -7,
    /// The domain was restored or migrated: netfront_reconnect().
    Restored = -8,
    /// There is no connection, since the last netfront_reconnect() failed: call it again.
    Disconnected = -9,
    /// The call was made from inside the callback of netfront_receive().
    Busy = -10,
    /// The call was made by another thread than the one that opened.
    Thread = -11,
    /// The operating system or the hypervisor refused.
    System = -12,
    /// A bug of this library: nothing but netfront_close() is possible with this handle.
    Bug = -13,
}

/// What happens to a page after its packet.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Pages are granted once; small packets are copied, large ones lent. For use.
    Pool = 0,
    /// A grant for every packet. For comparisons.
    PerPacket = 1,
    /// Pages are granted once, every packet is copied. For comparisons.
    CopyAlways = 2,
    /// Pages are granted in batches and used once. For comparisons.
    NoRecycle = 3,
}

/// What is known about a packet's TCP or UDP checksum.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// The field is said to be complete, and nobody has checked.
    None = 0,
    /// The field holds the sum of the pseudo header only: to be filled in before it goes out on a wire.
    Blank = 1,
    /// It was checked, or needs no check.
    Validated = 2,
}

/// Whether a packet stands for several segments.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gso {
    /// It is one packet.
    None = 0,
    /// Several segments of TCP over IPv4.
    Tcpv4 = 1,
    /// Several segments of TCP over IPv6.
    Tcpv6 = 2,
}

/// What the backend takes: bits of what netfront_features() answers.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    /// Packets larger than a page.
    Sg = 1,
    /// NETFRONT_GSO_TCPV4.
    GsoTcpv4 = 2,
    /// NETFRONT_GSO_TCPV6.
    GsoTcpv6 = 4,
    /// NETFRONT_CHECKSUM_BLANK over IPv4.
    ChecksumIpv4 = 8,
    /// NETFRONT_CHECKSUM_BLANK over IPv6.
    ChecksumIpv6 = 16,
    /// The backend is not trusted: everything is copied before it is looked at.
    Untrusted = 32,
}

/// Why netfront_wait() and netfront_woken() returned.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Nothing happened in time.
    Timeout = 0,
    /// There are packets or answers, or there may be.
    Work = 1,
    /// The link changed (see netfront_next_change()), or somebody called netfront_wake().
    Called = 2,
}

/// What changed, as netfront_next_change() answers.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Nothing more.
    None = 0,
    /// The backend is no longer connected: netfront_reconnect(). The value is its state in the store.
    BackendLeft = 1,
    /// The domain was restored or migrated: netfront_reconnect().
    Restored = 2,
    /// The cable was put in (value 1) or pulled out (value 0).
    Carrier = 3,
    /// The value is the new MTU.
    Mtu = 4,
    /// The backend broke the contract: netfront_reconnect().
    Broken = 5,
    /// The network is said to be as fast as the value, in megabits a second; 0: nothing is said any more.
    Speed = 6,
}

/// How to connect. What is 0 or NULL has its default, so `struct netfront_options options = { 0 };` is a good
/// start.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The socket of a simulated Xen; NULL for the Xen domain that the program runs in.
    pub sim: *const c_char,
    /// The vif's number.
    pub vif: u32,
    /// The domain to be on the simulated Xen; 0 for domain 1. On Xen it must be 0.
    pub domid: u32,
    /// One of enum netfront_policy.
    pub policy: u32,
    /// Packets shorter than this are copied whole, others are lent in their pages. Bytes; 0 for 256.
    pub threshold: u32,
    /// Not 0: copy everything out of shared memory before it is looked at, and lend nothing.
    pub untrusted: u32,
    /// How long each step of connecting may take. Milliseconds; 0 for 10000.
    pub deadline_ms: u32,
    /// For later versions; 0.
    pub reserved: [u64; 4],
}

/// Facts about a packet that are not in its bytes.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offload {
    /// One of enum netfront_checksum.
    pub checksum: u32,
    /// One of enum netfront_gso.
    pub gso: u32,
    /// Payload bytes of each segment; 0 if it is one packet, at most 65535.
    pub gso_size: u32,
    /// For later versions; 0.
    pub reserved: u32,
}

/// Bytes of a packet that lie together.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Piece {
    /// The first of them.
    pub data: *const u8,
    /// How many.
    pub len: usize,
}

/// A received packet, lent for the time of the callback. From the Ethernet header on, without FCS.
///
/// The first piece was copied out of shared memory: the whole packet if it is small, up to 128 bytes of headers
/// if it is large. The other pieces are the granted pages: a backend that breaks the contract can still
/// change them, so decide nothing by them that you do not check on a copy.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Packet {
    /// The bytes, in order.
    pub pieces: *const Piece,
    /// How many pieces.
    pub count: usize,
    /// Bytes of all pieces together.
    pub len: usize,
    /// Checksum and segmentation, as the backend gave them.
    pub offload: Offload,
}

/// Takes one packet, which is gone when this returns. It must not throw or jump out, and of the handle that
/// receives it may call nothing (NETFRONT_ERROR_BUSY): answers wait until netfront_receive() has returned.
pub type Deliver = Option<extern "C" fn(user: *mut c_void, packet: *const Packet)>;

/// Takes one counter: its name, its value, and what it counts in a sentence.
pub type Count = Option<
    extern "C" fn(user: *mut c_void, name: *const c_char, value: u64, meaning: *const c_char),
>;

impl Default for Options {
    fn default() -> Self {
        Self {
            sim: std::ptr::null(),
            vif: 0,
            domid: 0,
            policy: Policy::Pool as u32,
            threshold: 0,
            untrusted: 0,
            deadline_ms: 0,
            reserved: [0; 4],
        }
    }
}

impl Error {
    /// The name in the header of what a call answered.
    pub fn name(answer: c_int) -> &'static CStr {
        match answer {
            0.. => c"NETFRONT_ERROR_NONE",
            -1 => c"NETFRONT_ERROR_INVALID",
            -2 => c"NETFRONT_ERROR_UNAVAILABLE",
            -3 => c"NETFRONT_ERROR_NO_VIF",
            -4 => c"NETFRONT_ERROR_DEADLINE",
            -5 => c"NETFRONT_ERROR_FULL",
            -6 => c"NETFRONT_ERROR_LENGTH",
            -7 => c"NETFRONT_ERROR_BROKEN",
            -8 => c"NETFRONT_ERROR_RESTORED",
            -9 => c"NETFRONT_ERROR_DISCONNECTED",
            -10 => c"NETFRONT_ERROR_BUSY",
            -11 => c"NETFRONT_ERROR_THREAD",
            -12 => c"NETFRONT_ERROR_SYSTEM",
            -13 => c"NETFRONT_ERROR_BUG",
            _ => c"unknown",
        }
    }
}
