//! The functions of `netfront.h`, each a thin skin over `handle.rs`: pointers are looked at here and nowhere
//! else.
//!
//! What the caller owes, and each `unsafe` block relies on:
//!
//! - a `struct netfront *` is NULL, or came from `netfront_open` and was not closed;
//! - any other pointer is NULL, or good for the bytes that the function's documentation names;
//! - only `netfront_wake`, `netfront_stat` and `netfront_stats` are called by other threads than the one that
//!   opened, and none of them during or after `netfront_close`.
//!
//! The documentation of the functions is for the header, in a C programmer's words.
#![allow(unsafe_code)]
// Said once, above.
#![allow(clippy::missing_safety_doc)]

use std::cell::RefCell;
use std::ffi::{c_char, c_int, c_void, CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use arrayvec::ArrayVec;

use crate::handle::{c_text, contained, Netfront};
use crate::problem::Problem;
use crate::types::{Count, Deliver, Error, Offload, Options, Packet, Piece};

/// The most pieces that netfront_sendv() takes.
pub const NETFRONT_PIECES_MAX: usize = 64;

thread_local! {
    /// Why the last open or close of this thread failed: there is no handle to keep it.
    static LAST: RefCell<CString> = RefCell::default();
}

const VERSION: &CStr =
    match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(text) => text,
        Err(_) => c"",
    };

fn invalid() -> c_int {
    Error::Invalid as c_int
}

/// For any thread: there is no place for a text, only the number is told.
fn alone(work: impl FnOnce() -> Result<c_int, Problem>) -> c_int {
    contained(work).unwrap_or_else(|problem| problem.code as c_int)
}

/// Without a handle: the text goes where netfront_error_text(NULL) finds it.
fn aside(answer: Result<c_int, Problem>) -> c_int {
    answer.unwrap_or_else(|problem| {
        // A thread at its end has no place for a text any more.
        let _ = LAST.try_with(|last| *last.borrow_mut() = c_text(&problem.text));
        problem.code as c_int
    })
}

fn run(nf: *const Netfront, work: impl FnOnce(&Netfront) -> Result<c_int, Problem>) -> c_int {
    // SAFETY: NULL, or a handle that is open (see above); shared, since inside a callback it is in use.
    let handle = unsafe { nf.as_ref() };
    handle.map_or_else(invalid, |handle| handle.run(work))
}

/// The version of the library, as in "0.1.0".
#[no_mangle]
pub extern "C" fn netfront_version() -> *const c_char {
    VERSION.as_ptr()
}

/// Connects a vif and makes the calling thread its owner: only this thread may use the handle, but for
/// netfront_wake(), netfront_stat() and netfront_stats(). Options that are NULL are all defaults.
///
/// Answers 0 and a handle in `out`, or an error and NULL in `out`; netfront_error_text(NULL) tells more.
#[no_mangle]
pub unsafe extern "C" fn netfront_open(options: *const Options, out: *mut *mut Netfront) -> c_int {
    // SAFETY: NULL, or good for one pointer.
    let Some(out) = (unsafe { out.as_mut() }) else {
        return aside(Err(Problem::invalid(
            "out is NULL: there is no place for the handle",
        )));
    };
    *out = std::ptr::null_mut();
    let defaults = Options::default();
    // SAFETY: NULL, or good for one struct; read only until this call returns.
    let options = unsafe { options.as_ref() }.unwrap_or(&defaults);
    let sim = (!options.sim.is_null()).then(|| {
        // SAFETY: not NULL, so a text that ends in a byte 0.
        let text = unsafe { CStr::from_ptr(options.sim) };
        PathBuf::from(OsStr::from_bytes(text.to_bytes()))
    });
    aside(contained(|| {
        *out = Box::into_raw(Box::new(Netfront::open(options, sim)?));
        Ok(0)
    }))
}

/// Says goodbye to the backend and frees all, whatever it answers. NULL is allowed.
///
/// Answers 0; an error if the backend did not follow in time (all is freed, netfront_error_text(NULL) tells
/// more); NETFRONT_ERROR_BUSY or NETFRONT_ERROR_THREAD if the caller may not close, and then nothing is freed.
#[no_mangle]
pub unsafe extern "C" fn netfront_close(nf: *mut Netfront) -> c_int {
    // SAFETY: NULL, or a handle that is open.
    let Some(handle) = (unsafe { nf.as_ref() }) else {
        return 0;
    };
    if !handle.may_close() {
        return handle.run(|_| Err(Problem::BUSY));
    }
    // SAFETY: from Box::into_raw in netfront_open, and given back only here. Nobody uses it: this is the
    // owner's thread, outside of every callback, and other threads have stopped.
    let handle = unsafe { Box::from_raw(nf) };
    aside(contained(|| handle.close()))
}

/// Negotiates everything anew, after the backend left or broke the contract, or the domain was restored. Counters
/// go on. netfront_fd() stays the same; MAC, MTU and features may differ.
///
/// Answers 0, or an error: then there is no connection, and this may be called again, after a pause.
#[no_mangle]
pub unsafe extern "C" fn netfront_reconnect(nf: *mut Netfront) -> c_int {
    run(nf, Netfront::reconnect)
}

/// Takes up to `max` packets, gives each to `callback` with `user`, and posts pages for the next ones.
///
/// Answers how many packets there were; fewer than `max` means that nothing is left. A packet is good only until
/// its callback returns.
#[no_mangle]
pub unsafe extern "C" fn netfront_receive(
    nf: *mut Netfront,
    max: usize,
    callback: Deliver,
    user: *mut c_void,
) -> c_int {
    run(nf, |handle| {
        let callback = callback.ok_or_else(|| Problem::invalid("callback is NULL"))?;
        handle.receive(max, |packet| callback(user, packet))
    })
}

/// Copies a packet of `len` bytes, from the Ethernet header on, into pages for the backend. It is shown to the
/// backend by netfront_flush(). `offload` may be NULL: nothing is known.
///
/// Answers 0, NETFRONT_ERROR_FULL, or another error. Only send what netfront_features() says the backend takes.
#[no_mangle]
pub unsafe extern "C" fn netfront_send(
    nf: *mut Netfront,
    data: *const c_void,
    len: usize,
    offload: *const Offload,
) -> c_int {
    let piece = Piece {
        data: data.cast(),
        len,
    };
    // SAFETY: one piece, which is good for `len` bytes.
    unsafe { netfront_sendv(nf, &piece, 1, offload) }
}

/// The same for a packet in `count` pieces, at most NETFRONT_PIECES_MAX.
#[no_mangle]
pub unsafe extern "C" fn netfront_sendv(
    nf: *mut Netfront,
    pieces: *const Piece,
    count: usize,
    offload: *const Offload,
) -> c_int {
    run(nf, |handle| {
        if count > NETFRONT_PIECES_MAX {
            return Err(Problem::invalid(format!(
                "{count} pieces; a packet has at most {NETFRONT_PIECES_MAX}"
            )));
        }
        let mut slices = ArrayVec::<&[u8], NETFRONT_PIECES_MAX>::new();
        if count > 0 && pieces.is_null() {
            return Err(Problem::invalid("pieces is NULL"));
        }
        for index in 0..count {
            // SAFETY: not NULL, so good for `count` pieces.
            let piece = unsafe { *pieces.add(index) };
            if piece.len == 0 {
                continue;
            }
            // A slice of more than half of the memory cannot be; neither can such a packet.
            if piece.data.is_null() || piece.len > 0xffff {
                return Err(Problem::new(
                    Error::Length,
                    "data is NULL, or longer than 65535 bytes, the longest packet that there is",
                ));
            }
            // SAFETY: not NULL, so good for `len` bytes; read only until this call returns.
            slices.push(unsafe { std::slice::from_raw_parts(piece.data, piece.len) });
        }
        // SAFETY: NULL, or good for one struct.
        let offload = unsafe { offload.as_ref() }.copied().unwrap_or_default();
        handle.send(&slices, offload)
    })
}

/// Shows the backend all packets since the last call with at most one event, and takes back the pages of packets that
/// it has sent. Call it once a batch, before waiting.
#[no_mangle]
pub unsafe extern "C" fn netfront_flush(nf: *mut Netfront) -> c_int {
    run(nf, Netfront::flush)
}

/// How many slots of sent packets the backend has not answered. At 0 all is sent.
#[no_mangle]
pub unsafe extern "C" fn netfront_unanswered(nf: *mut Netfront) -> c_int {
    run(nf, Netfront::unanswered)
}

/// Sleeps until there is work, the link changes, somebody calls netfront_wake(), or the time is over; less than 0 is
/// for ever. No event is lost between two calls. A signal may end it early.
///
/// Answers one of enum netfront_event, or an error.
#[no_mangle]
pub unsafe extern "C" fn netfront_wait(nf: *mut Netfront, timeout_ms: c_int) -> c_int {
    run(nf, |handle| handle.wait(timeout_ms))
}

/// Ends the sleep of the owner in netfront_wait(), or its next one. For any thread, not for a signal handler.
#[no_mangle]
pub unsafe extern "C" fn netfront_wake(nf: *const Netfront) -> c_int {
    // SAFETY: NULL, or a handle that is open; only its waker is used, which is made for other threads.
    let Some(handle) = (unsafe { nf.as_ref() }) else {
        return invalid();
    };
    alone(|| {
        handle.wake();
        Ok(0)
    })
}

/// A file descriptor for a poll of your own, the same until netfront_close(), which closes it. The way to sleep:
/// netfront_arm(); if it answers 0, poll for POLLIN; then netfront_woken().
#[no_mangle]
pub unsafe extern "C" fn netfront_fd(nf: *mut Netfront) -> c_int {
    run(nf, Netfront::fd)
}

/// Before a poll of your own: asks for the next event. Answers 1 if there is work: do not sleep.
#[no_mangle]
pub unsafe extern "C" fn netfront_arm(nf: *mut Netfront) -> c_int {
    run(nf, Netfront::arm)
}

/// After a poll of your own. Answers one of enum netfront_event.
#[no_mangle]
pub unsafe extern "C" fn netfront_woken(nf: *mut Netfront) -> c_int {
    run(nf, Netfront::woken)
}

/// The next thing that changed since the last call, one of enum netfront_change, with its value in `value`, which
/// may be NULL. Call it until it answers 0, whenever a wait answers NETFRONT_EVENT_CALLED.
#[no_mangle]
pub unsafe extern "C" fn netfront_next_change(nf: *mut Netfront, value: *mut u32) -> c_int {
    run(nf, |handle| {
        let (change, number) = handle.change()?;
        // SAFETY: NULL, or good for one number.
        if let Some(value) = unsafe { value.as_mut() } {
            *value = number;
        }
        Ok(change as c_int)
    })
}

/// Writes the vif's Ethernet address, 6 bytes, to `mac`.
#[no_mangle]
pub unsafe extern "C" fn netfront_mac(nf: *mut Netfront, mac: *mut u8) -> c_int {
    run(nf, |handle| {
        if mac.is_null() {
            return Err(Problem::invalid("mac is NULL: it takes 6 bytes"));
        }
        // SAFETY: not NULL, so good for 6 bytes, which are nobody's else.
        unsafe { std::ptr::copy_nonoverlapping(handle.link().mac.as_ptr(), mac, 6) };
        Ok(0)
    })
}

/// Bytes of payload in a frame, without the Ethernet header.
#[no_mangle]
pub unsafe extern "C" fn netfront_mtu(nf: *mut Netfront) -> c_int {
    run(nf, |handle| {
        Ok(c_int::try_from(handle.link().mtu).unwrap_or(c_int::MAX))
    })
}

/// 1 if the cable is in and the backend is connected, else 0.
#[no_mangle]
pub unsafe extern "C" fn netfront_carrier(nf: *mut Netfront) -> c_int {
    run(nf, |handle| Ok(handle.link().carrier.into()))
}

/// What the backend takes: bits of enum netfront_feature.
#[no_mangle]
pub unsafe extern "C" fn netfront_features(nf: *mut Netfront) -> c_int {
    run(nf, Netfront::features)
}

/// Copies a packet to `buffer`, of `size` bytes. Answers its length, or NETFRONT_ERROR_LENGTH if it does not fit.
#[no_mangle]
pub unsafe extern "C" fn netfront_packet_copy(
    packet: *const Packet,
    buffer: *mut c_void,
    size: usize,
) -> c_int {
    // SAFETY: NULL, or the packet of a callback that has not returned.
    let Some(packet) = (unsafe { packet.as_ref() }) else {
        return invalid();
    };
    if buffer.is_null() || packet.pieces.is_null() {
        return invalid();
    }
    if packet.len > size {
        return Error::Length as c_int;
    }
    let mut at = 0;
    for index in 0..packet.count {
        // SAFETY: a packet has `count` pieces. Each is good for its bytes, and together they are `len` bytes,
        // for which there is room. The buffer is the caller's, and no part of a page.
        unsafe {
            let piece = *packet.pieces.add(index);
            std::ptr::copy_nonoverlapping(piece.data, buffer.cast::<u8>().add(at), piece.len);
            at += piece.len;
        }
    }
    at as c_int
}

/// Writes the counter of this name to `value`. For any thread. NETFRONT_ERROR_INVALID if there is none of this name.
#[no_mangle]
pub unsafe extern "C" fn netfront_stat(
    nf: *const Netfront,
    name: *const c_char,
    value: *mut u64,
) -> c_int {
    // SAFETY: each NULL or good; of the handle only the counters are used, which are made for other threads.
    let (handle, value) = unsafe { (nf.as_ref(), value.as_mut()) };
    let (Some(handle), Some(value), false) = (handle, value, name.is_null()) else {
        return invalid();
    };
    // SAFETY: not NULL, so a text that ends in a byte 0.
    let name = unsafe { CStr::from_ptr(name) };
    alone(|| {
        let counters = handle.stats().snapshot();
        let found = counters
            .0
            .iter()
            .find(|(known, _)| known.as_bytes() == name.to_bytes());
        let (_, count) = found.ok_or_else(|| Problem::invalid("no counter has this name"))?;
        *value = *count;
        Ok(0)
    })
}

/// Gives every counter to `callback` with `user`. For any thread. Answers how many there are.
#[no_mangle]
pub unsafe extern "C" fn netfront_stats(
    nf: *const Netfront,
    callback: Count,
    user: *mut c_void,
) -> c_int {
    // SAFETY: as in netfront_stat.
    let (Some(handle), Some(callback)) = (unsafe { nf.as_ref() }, callback) else {
        return invalid();
    };
    alone(|| {
        let table = handle.stats().table();
        for (name, value, meaning) in &table {
            let (name, meaning) = (c_text(name), c_text(meaning));
            callback(user, name.as_ptr(), *value, meaning.as_ptr());
        }
        Ok(table.len() as c_int)
    })
}

/// Why the last call with this handle failed, in a sentence; for NULL why the last netfront_open() or netfront_close()
/// of this thread did. Good until the next call of this. For the owner's thread.
#[no_mangle]
pub unsafe extern "C" fn netfront_error_text(nf: *const Netfront) -> *const c_char {
    // SAFETY: NULL, or a handle that is open.
    match unsafe { nf.as_ref() } {
        Some(handle) => handle.error_text(),
        None => LAST
            .try_with(|last| last.borrow().as_ptr())
            .unwrap_or(c"".as_ptr()),
    }
}

/// The name of an answer of a call, as in "NETFRONT_ERROR_FULL"; of 0 and more "NETFRONT_ERROR_NONE".
#[no_mangle]
pub extern "C" fn netfront_error_name(error: c_int) -> *const c_char {
    Error::name(error).as_ptr()
}
