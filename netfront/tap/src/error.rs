//! What can go wrong with a TAP, and what to do then.

use rustix::io::Errno;

/// An operation on a TAP that failed. The text says what was wanted, what the kernel answered and
/// what helps.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The clone device cannot be opened.
    #[error(
        "opening /dev/net/tun failed: {source}. Load the module (`modprobe tun`) and run with \
         CAP_NET_ADMIN and access to the device"
    )]
    Device {
        /// The kernel's answer.
        source: Errno,
    },
    /// The interface cannot be made or attached.
    #[error("attaching TAP `{name}` failed: {source}. {}", attach_hint(*source))]
    Attach {
        /// The interface that was asked for.
        name: String,
        /// The kernel's answer.
        source: Errno,
    },
    /// The name is no interface name.
    #[error(
        "`{name}` cannot be the name of an interface: 1 to 15 bytes are needed, without `/`, \
         white space or NUL"
    )]
    Name {
        /// What was given.
        name: String,
    },
    /// A setting of the interface was refused.
    #[error("TAP `{name}`: {action} failed: {source}. {}", setting_hint(*source))]
    Setting {
        /// The interface.
        name: String,
        /// What was to be set.
        action: &'static str,
        /// The kernel's answer.
        source: Errno,
    },
    /// A read or a write failed for a reason that a next try would meet again.
    #[error("TAP `{name}`: {action} a frame failed: {source}. The interface may be gone")]
    Transfer {
        /// The interface.
        name: String,
        /// `reading` or `writing`.
        action: &'static str,
        /// The kernel's answer.
        source: Errno,
    },
    /// A file descriptor was handed over that is no TAP with the header this crate speaks.
    #[error("the file descriptor handed over cannot be used: {reason}")]
    Descriptor {
        /// What is wrong with it.
        reason: String,
    },
    /// A network namespace cannot be entered.
    #[error(
        "entering network namespace `{namespace}` failed: {source}. `ip netns list` shows those \
         that have a name; CAP_SYS_ADMIN is needed"
    )]
    Namespace {
        /// Its name or path.
        namespace: String,
        /// The kernel's answer.
        source: Errno,
    },
    /// The short-lived thread that enters a namespace could not be started, or died.
    #[error("the thread for network namespace `{namespace}` failed: {reason}")]
    Thread {
        /// Its name or path.
        namespace: String,
        /// Why.
        reason: String,
    },
}

fn attach_hint(source: Errno) -> &'static str {
    match source {
        Errno::PERM | Errno::ACCESS => "CAP_NET_ADMIN is needed, or a TAP that belongs to you",
        Errno::BUSY => "Another program holds it: stop that one or take another name",
        Errno::INVAL => {
            "An interface of that name exists and is no TAP, or has other flags (queues, header)"
        }
        Errno::TOOBIG => "It has as many queues as it may have",
        _ => "`ip -d link show type tun` shows what exists",
    }
}

fn setting_hint(source: Errno) -> &'static str {
    match source {
        Errno::PERM => "CAP_NET_ADMIN is needed",
        Errno::NODEV => "The interface is gone, or was moved to another network namespace",
        Errno::BUSY => "Some drivers allow it only while the interface is down",
        _ => "`ip -d link show` shows the interface's limits",
    }
}
