//! The one error of this crate: what was wanted, what was found, what to do.

use std::io;
use std::time::Duration;

use crate::{CopyStatus, DomId, GrantRef, Port};

/// What kind of thing is missing, and so who can bring it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// Nothing that is set here brings it: this is no Xen domain, or nobody serves at that place.
    Here,
    /// This user may not have it.
    Rights,
    /// A module, a device node or a library, which an administrator can bring.
    Setting,
}

/// Why the hypervisor, the store or the simulation did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// This machine does not have what was asked for.
    #[error("{wanted} is not available: {found}; {hint}")]
    Unavailable {
        /// What kind of thing is missing.
        lack: Lack,
        /// What was asked for.
        wanted: String,
        /// What is there instead.
        found: String,
        /// What to do.
        hint: String,
    },

    /// The operating system refused a call.
    #[error("Could not {doing}")]
    System {
        /// What was being done, to be read after "Could not".
        doing: String,
        /// What the system answered.
        #[source]
        source: io::Error,
    },

    /// More pages were to be shared than the limit of grants leaves.
    #[error(
        "Wanted to share {wanted} pages, but {shared} of at most {limit} are shared already; \
         use a smaller pool, or raise the limit of grants"
    )]
    GrantLimit {
        /// Pages asked for.
        wanted: usize,
        /// Pages shared when it was asked, as far as is known.
        shared: usize,
        /// Pages that may be shared at once.
        limit: usize,
    },

    /// A page of another domain could not be mapped.
    #[error(
        "Grant reference {gref} of domain {owner} was refused: {status}; \
         the owner must share the page with this domain, for this access, before it names it"
    )]
    BadReference {
        /// The domain that owns the page.
        owner: DomId,
        /// The reference that was refused.
        gref: GrantRef,
        /// Why.
        status: CopyStatus,
    },

    /// An event channel could not be bound or is not bound here.
    #[error("Event channel {port}: {reason}; a channel is used through the handle that bound it")]
    BadPort {
        /// The local number, or the remote one when a bind was refused.
        port: Port,
        /// What is wrong with it.
        reason: String,
    },

    /// The domain was saved and restored, or migrated, since the event channels were opened.
    #[error(
        "The domain was restored since these event channels were opened, and all of them are dead; \
         drop them and open new ones"
    )]
    Restored,

    /// The domain number is taken: another process stands on it.
    #[error(
        "Domain {id} is already attached to the simulated Xen by a living process; \
         stop that process or choose another domain number"
    )]
    DomainInUse {
        /// The number asked for.
        id: DomId,
    },

    /// There is no such domain.
    #[error("Domain {id} does not exist; start it before its peer looks for it")]
    NoSuchDomain {
        /// The number asked for.
        id: DomId,
    },

    /// The store does not let this domain do that.
    #[error(
        "The store refused to {operation} {path:?}: permission denied; \
         the owner of the node, or domain 0, must grant it"
    )]
    StorePermission {
        /// What was to be done.
        operation: &'static str,
        /// With which node.
        path: String,
    },

    /// The store answered with an error.
    #[error("The store refused to {operation} {path:?}: {code}{}", of_quota(code))]
    StoreRefused {
        /// What was to be done.
        operation: &'static str,
        /// With which node.
        path: String,
        /// The name of the error as the store gave it, as in `ENOSPC`.
        code: String,
    },

    /// A transaction met a change made by somebody else.
    #[error("The transaction met a change made by another client; do it again from its start")]
    TransactionConflict,

    /// The connection to a service is gone and will not come back.
    #[error("{service} closed the connection while {doing}; open a new one once it runs again")]
    Gone {
        /// Who hung up.
        service: &'static str,
        /// What was being done.
        doing: String,
    },

    /// A wait reached its deadline.
    #[error("Waited {after:?} for {waiting_for} and it did not come; see whether it still runs")]
    TimedOut {
        /// What was waited for.
        waiting_for: String,
        /// For how long.
        after: Duration,
    },

    /// A service answered something that its protocol does not allow.
    #[error("{service} answered against its protocol: {found}; its version may not fit this one")]
    BadAnswer {
        /// Who answered.
        service: &'static str,
        /// What it said.
        found: String,
    },

    /// The caller asked for something that makes no sense.
    #[error("{what}")]
    Invalid {
        /// What was wrong, and what would be right.
        what: String,
    },

    /// This client or this hypervisor cannot do that.
    #[error("{what} is not supported by {by}; {hint}")]
    Unsupported {
        /// What was asked for.
        what: &'static str,
        /// Who cannot do it.
        by: &'static str,
        /// What to do instead.
        hint: &'static str,
    },
}

impl Error {
    /// An error of the system, with what was being done, to be read after "Could not".
    pub(crate) fn system(doing: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Error::System {
            doing: doing.into(),
            source: source.into(),
        }
    }
}

/// What the quotas of xenstored mean by their codes, and what helps.
fn of_quota(code: &str) -> &'static str {
    match code {
        "E2BIG" => {
            "; the domain has as many watches as xenstored lets it (128 by default, with those of its kernel): end what \
             watches, or raise the quota where xenstored runs"
        }
        "ENOSPC" => {
            "; the domain owns as many nodes or transactions as xenstored lets it, or the node is too large: remove what is left \
             of others, or raise the quota where xenstored runs"
        }
        "EQUOTA" => "; a quota of xenstored's is used up: raise it where xenstored runs",
        _ => "",
    }
}
