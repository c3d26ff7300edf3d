//! Why the program ends without success, and its exit code.

use std::error::Error as _;
use std::io::{self, ErrorKind};

use netfront::hypervisor::{Error as Ground, Lack};
use netfront::Error as Driver;
use netfront_tap::Error as Tap;
use rustix::io::Errno;

use crate::probe::LEAST_PAGES;

/// The exit codes, as `netfront --help` documents them. From 64 on they mean what sysexits.h says.
pub mod code {
    /// All went well.
    pub const SUCCESS: u8 = 0;
    /// Something failed.
    pub const FAILED: u8 = 1;
    /// Not possible on this machine, or not as it is now (EX_UNAVAILABLE).
    pub const NOT_HERE: u8 = 69;
    /// Nobody confirmed a take-over, so it was undone (EX_TEMPFAIL).
    pub const NOT_CONFIRMED: u8 = 75;
    /// Told to end, it ended, and the backend has not let go (EX_PROTOCOL).
    pub const NO_GOODBYE: u8 = 76;
    /// This user may not (EX_NOPERM).
    pub const NO_RIGHTS: u8 = 77;
    /// A module, a limit or another setting is missing (EX_CONFIG).
    pub const SETTING: u8 = 78;
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Driver(#[from] Driver),
    #[error(transparent)]
    Hypervisor(#[from] Ground),
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    /// Something was measured or verified, and it is not as it must be.
    #[error("{0}")]
    Verdict(String),
    /// It cannot be done on this machine (sysexits' EX_UNAVAILABLE).
    #[error("{0}")]
    NotHere(String),
    /// With an exit code of its own.
    #[error("{text}")]
    Class { code: u8, text: String },
}

impl Failure {
    /// The exit code, as `netfront --help` documents them.
    pub fn code(&self) -> u8 {
        match self {
            Self::NotHere(_) => code::NOT_HERE,
            Self::Class { code, .. } => *code,
            Self::Verdict(_) => code::FAILED,
            Self::Io { source, .. } | Self::Driver(Driver::Io { source, .. }) => of_system(source),
            Self::Hypervisor(error) | Self::Driver(Driver::Hypervisor(error)) => of_ground(error),
            Self::Driver(Driver::Tap(error)) => of_tap(error),
            // A vif, a backend or its answer may come at any time: worth another attempt.
            Self::Driver(_) => code::FAILED,
        }
    }

    /// What went wrong with its causes, and what mends it, where the text does not say so already.
    pub fn told(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(next) = cause {
            let said = next.to_string();
            if !text.contains(&said) {
                text = format!("{text}: {said}");
            }
            cause = next.source();
        }
        match self.mend() {
            Some(mend) if !text.contains("root") => format!("{text}; {mend}"),
            _ => text,
        }
    }

    fn mend(&self) -> Option<&'static str> {
        match (self, self.code()) {
            (Self::Class { .. }, _) => None,
            (_, code::NO_RIGHTS) => Some("this user may not: run it as root"),
            (Self::Driver(Driver::Hypervisor(Ground::GrantLimit { .. })), code::SETTING) => {
                Some("as root: echo 4096 >/sys/module/xen_gntalloc/parameters/limit")
            }
            _ => None,
        }
    }

    /// For `map_err`: names what was being done.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            what: what.into(),
            source,
        }
    }
}

fn of_system(error: &io::Error) -> u8 {
    match error.kind() {
        ErrorKind::PermissionDenied => code::NO_RIGHTS,
        _ => code::FAILED,
    }
}

fn of_ground(error: &Ground) -> u8 {
    match error {
        Ground::Unavailable { lack, .. } => match lack {
            Lack::Here => code::NOT_HERE,
            Lack::Rights => code::NO_RIGHTS,
            Lack::Setting => code::SETTING,
        },
        // Larger, the limit is only used up: by others, or by a driver that was killed and whose pages the backend has
        // not let go of yet. That passes, and a service is to try again.
        Ground::GrantLimit { limit, .. } if *limit < LEAST_PAGES => code::SETTING,
        Ground::System { source, .. } => of_system(source),
        _ => code::FAILED,
    }
}

fn of_tap(error: &Tap) -> u8 {
    let source = match error {
        Tap::Device { source } => match *source {
            Errno::NOENT | Errno::NODEV | Errno::NXIO => return code::SETTING,
            source => source,
        },
        Tap::Attach { source, .. }
        | Tap::Setting { source, .. }
        | Tap::Namespace { source, .. } => *source,
        _ => return code::FAILED,
    };
    of_system(&source.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unavailable(lack: Lack) -> Ground {
        Ground::Unavailable {
            lack,
            wanted: "/dev/xen/gntalloc".into(),
            found: "it is not as it must be".into(),
            hint: "modprobe xen-gntalloc".into(),
        }
    }

    #[test]
    fn what_is_missing_decides_the_exit_code_whoever_reports_it() {
        for (lack, wanted) in [(Lack::Here, 69), (Lack::Rights, 77), (Lack::Setting, 78)] {
            assert_eq!(Failure::from(unavailable(lack)).code(), wanted);
            let driver = Driver::from(unavailable(lack));
            assert_eq!(Failure::from(driver).code(), wanted);
        }
    }

    #[test]
    fn a_limit_that_is_only_used_up_may_be_tried_again_and_one_that_is_too_small_may_not() {
        let refused = |limit| {
            let (wanted, shared) = (32, 0);
            let error = Ground::GrantLimit {
                wanted,
                shared,
                limit,
            };
            Failure::from(Driver::from(error))
        };
        // Two pools of the smallest size fit, if whoever has the pages lets go of them.
        assert_eq!(refused(LEAST_PAGES).code(), code::FAILED);
        let small = refused(LEAST_PAGES - 1);
        assert_eq!(small.code(), code::SETTING);
        assert!(
            small.told().contains("parameters/limit"),
            "{}",
            small.told()
        );
    }

    #[test]
    fn a_tap_that_this_user_may_not_make_is_told_from_one_without_a_module_and_from_one_in_use() {
        let device = |source| Failure::from(Driver::from(Tap::Device { source })).code();
        assert_eq!(device(Errno::NOENT), code::SETTING);
        assert_eq!(device(Errno::NODEV), code::SETTING);
        assert_eq!(device(Errno::ACCESS), code::NO_RIGHTS);
        let attach = |source| {
            let name = "xn0".into();
            Failure::from(Driver::from(Tap::Attach { name, source })).code()
        };
        assert_eq!(attach(Errno::PERM), code::NO_RIGHTS);
        // Its owner may be a driver that is just ending.
        assert_eq!(attach(Errno::BUSY), code::FAILED);
    }

    #[test]
    fn a_refusal_of_the_system_names_its_cause_once_and_says_who_may() {
        let error = Ground::System {
            doing: "connect to /run/xen".into(),
            source: ErrorKind::PermissionDenied.into(),
        };
        let failure = Failure::from(error);
        assert_eq!(failure.code(), code::NO_RIGHTS);
        let text = failure.told();
        assert_eq!(text.matches("permission denied").count(), 1, "{text}");
        assert!(text.contains("as root"), "{text}");
        let failure = Failure::io("opening x (as root?)")(ErrorKind::PermissionDenied.into());
        assert_eq!(failure.told().matches("root").count(), 1);
        assert_eq!(
            Failure::io("reading x")(ErrorKind::NotFound.into()).code(),
            1
        );
    }
}
