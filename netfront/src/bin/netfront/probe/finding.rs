//! One line of the answer.

use std::fmt;

use serde_json::{json, Value};

use super::mend::Fix;
use crate::failure::code;

/// What kind of thing is in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Nothing is.
    Ok,
    /// Nothing yet, but somebody should know.
    Warning,
    /// What is not there and no command brings: Xen, a vif, a backend that can be used.
    Missing,
    /// Somebody has the vif.
    InUse,
    /// This user may not.
    Rights,
    /// A module, a library, a limit.
    Setting,
}

impl Class {
    /// The line's first word, and the class in the JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Missing => "missing",
            Self::InUse => "in use",
            Self::Rights => "rights",
            Self::Setting => "setting",
        }
    }

    /// The exit code, if it keeps a vif from being used.
    fn code(self) -> Option<u8> {
        match self {
            Self::Ok | Self::Warning => None,
            Self::Missing | Self::InUse => Some(code::NOT_HERE),
            Self::Rights => Some(code::NO_RIGHTS),
            Self::Setting => Some(code::SETTING),
        }
    }
}

/// What was found, and what mends it.
#[derive(Debug)]
pub struct Finding {
    pub what: String,
    pub class: Class,
    pub found: String,
    /// The command that mends it, if it is to be mended.
    pub mend: Option<String>,
    /// What `--fix` does, if it may be done without asking.
    pub fix: Option<Fix>,
}

impl Finding {
    /// A thing that is as it must be.
    pub fn ok(what: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(what, Class::Ok, found)
    }

    /// A thing of any kind.
    pub fn new(what: impl Into<String>, class: Class, found: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            class,
            found: found.into(),
            mend: None,
            fix: None,
        }
    }

    /// The command that mends it.
    pub fn by(mut self, command: impl Into<String>) -> Self {
        self.mend = Some(command.into());
        self
    }

    /// What mends it without harm.
    pub fn fixed_by(mut self, fix: Fix) -> Self {
        self.mend = Some(fix.command());
        self.fix = Some(fix);
        self
    }

    pub fn is_ok(&self) -> bool {
        self.class == Class::Ok
    }

    /// It keeps a vif from being used.
    pub fn is_in_the_way(&self) -> bool {
        self.class.code().is_some()
    }

    /// For programs.
    pub fn json(&self) -> Value {
        json!({
            "what": self.what,
            "ok": self.is_ok(),
            "class": self.class.word(),
            "found": self.found,
            "mend": self.mend,
        })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, found, .. } = self;
        write!(f, "{:<8} {what}: {found}", self.class.word())?;
        match &self.mend {
            Some(command) => write!(f, "; what mends it: {command}"),
            None => Ok(()),
        }
    }
}

/// What has to be mended first decides: without rights nothing can be, and a missing module hides the rest. `None`:
/// the vif can be used.
pub fn exit_code(findings: &[Finding]) -> Option<u8> {
    let found = |code: &u8| {
        findings
            .iter()
            .any(|finding| finding.class.code() == Some(*code))
    };
    [code::NO_RIGHTS, code::SETTING, code::NOT_HERE]
        .into_iter()
        .find(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(classes: &[Class]) -> Option<u8> {
        let finding = |class: &Class| Finding::new("x", *class, "y");
        exit_code(&classes.iter().map(finding).collect::<Vec<_>>())
    }

    #[test]
    fn the_exit_code_is_that_of_what_has_to_be_mended_first() {
        use Class::{InUse, Missing, Ok, Rights, Setting, Warning};
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[Ok, Warning]), None);
        assert_eq!(of(&[Ok, InUse]), Some(69));
        assert_eq!(of(&[Missing, Setting, Ok]), Some(78));
        assert_eq!(of(&[InUse, Setting, Rights]), Some(77));
    }

    #[test]
    fn a_line_says_what_is_wrong_and_what_mends_it() {
        let finding = Finding::new("/dev/net/tun", Class::Setting, "no such device node")
            .fixed_by(Fix::Module("tun"));
        let line = "setting  /dev/net/tun: no such device node; what mends it: modprobe tun";
        assert_eq!(finding.to_string(), line);
        assert_eq!(finding.json()["mend"], "modprobe tun");
        let finding = Finding::ok("vif", "here");
        assert_eq!(finding.to_string(), "ok       vif: here");
        assert!(finding.json()["mend"].is_null());
    }
}
