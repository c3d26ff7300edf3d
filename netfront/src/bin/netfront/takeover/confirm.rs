//! `netfront confirm`: somebody can still reach the machine, so the take-over stays.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{json, Value};

use super::watch::{CONFIRMED, EXPIRED};
use crate::control::{self, SCHEMA};
use crate::failure::Failure;
use crate::orders::Order;
use crate::output::say;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// Nobody has said anything; until then somebody may.
    Open(Option<Instant>),
    Confirmed,
    /// It was too late, or the driver ends for another reason.
    Over,
}

/// Whether a take-over was confirmed, and how long it may still be.
#[derive(Debug)]
pub struct Confirmation {
    answer: Mutex<Answer>,
    changed: Condvar,
    /// Who ends this process if it does not end by itself.
    guardian: Option<UnixStream>,
}

impl Confirmation {
    /// To be confirmed `within` this time from `now`; zero: for ever.
    pub fn new(now: Instant, within: Duration) -> Self {
        let end = (!within.is_zero()).then_some(now + within);
        Self {
            answer: Mutex::new(Answer::Open(end)),
            changed: Condvar::new(),
            guardian: None,
        }
    }

    /// Has the guardian at the other end of this socket know.
    pub fn telling(mut self, guardian: Option<UnixStream>) -> Self {
        self.guardian = guardian;
        self
    }

    fn tell(&self, word: u8) {
        if let Some(mut guardian) = self.guardian.as_ref() {
            // A guardian that has gone is noticed where its words are waited for.
            let _ = guardian.write_all(&[word]);
        }
    }

    /// Somebody confirms it. False: too late.
    pub fn confirm(&self, now: Instant) -> bool {
        let mut answer = self.answer();
        expire(&mut answer, now);
        if let Answer::Open(_) = *answer {
            *answer = Answer::Confirmed;
            // Before anybody is told that it was in time.
            self.tell(CONFIRMED);
        }
        self.changed.notify_all();
        *answer == Answer::Confirmed
    }

    /// Nobody needs to confirm any more: the driver ends. What was too late stays so.
    pub fn end(&self) {
        let mut answer = self.answer();
        if *answer != Answer::Over {
            *answer = Answer::Confirmed;
        }
        self.changed.notify_all();
    }

    /// The time that is left. `None`: it is confirmed, or may take for ever. Zero: it is too late.
    pub fn left(&self, now: Instant) -> Option<Duration> {
        let mut answer = self.answer();
        expire(&mut answer, now);
        match *answer {
            Answer::Open(end) => end.map(|end| end.saturating_duration_since(now)),
            Answer::Confirmed => None,
            Answer::Over => Some(Duration::ZERO),
        }
    }

    /// True if the time ran out before anybody confirmed.
    pub fn expired(&self) -> bool {
        *self.answer() == Answer::Over
    }

    /// Waits until it is confirmed or too late. True: it is too late.
    pub fn wait(&self) -> bool {
        let mut answer = self.answer();
        loop {
            let now = Instant::now();
            expire(&mut answer, now);
            match *answer {
                Answer::Open(Some(end)) => {
                    // Whatever woke it, the time that is left says what holds.
                    let waited = self.changed.wait_timeout(answer, end - now);
                    answer = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                Answer::Open(None) | Answer::Confirmed => return false,
                Answer::Over => {
                    self.tell(EXPIRED);
                    return true;
                }
            }
        }
    }

    /// The answer for the control socket.
    pub fn reply(&self, vif: u32) -> Value {
        match self.confirm(Instant::now()) {
            true => json!({ "schema": SCHEMA, "vif": vif, "confirmed": true }),
            false => json!({ "schema": SCHEMA, "error": "too late: the vif is being given back" }),
        }
    }

    fn answer(&self) -> MutexGuard<'_, Answer> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn expire(answer: &mut Answer, now: Instant) {
    if matches!(*answer, Answer::Open(Some(end)) if now >= end) {
        *answer = Answer::Over;
    }
}

/// The answer of a driver that has nothing to be confirmed.
pub fn nothing_to_confirm() -> Value {
    json!({ "schema": SCHEMA, "error": "nothing to confirm: this driver was started without --take-over" })
}

/// `netfront confirm`.
pub fn confirm(args: &Order) -> Result<(), Failure> {
    let place = args.which.one()?;
    let reply = control::ask(&place.socket, &json!({ "command": "confirm" })).map_err(
        control::unanswered(&place.socket, "netfront run --take-over"),
    )?;
    if let Some(error) = reply["error"].as_str() {
        return Err(Failure::NotHere(error.into()));
    }
    if args.json {
        say!("{reply}");
    } else {
        let vif = &reply["vif"];
        say!("vif {vif}: confirmed, netfront keeps it until it is stopped");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn who_confirms_in_time_keeps_the_vif() {
        let start = Instant::now();
        let confirmation = Confirmation::new(start, MINUTE);
        let later = start + Duration::from_secs(59);
        assert_eq!(confirmation.left(later), Some(Duration::from_secs(1)));
        assert!(confirmation.confirm(later));
        assert_eq!(confirmation.left(start + 2 * MINUTE), None);
        assert!(!confirmation.expired());
    }

    #[test]
    fn who_confirms_too_late_is_told_so() {
        let start = Instant::now();
        let confirmation = Confirmation::new(start, MINUTE);
        assert!(!confirmation.confirm(start + MINUTE));
        assert_eq!(confirmation.left(start + MINUTE), Some(Duration::ZERO));
        assert!(confirmation.expired());
        confirmation.end();
        assert!(confirmation.expired());
    }

    #[test]
    fn the_guardian_hears_that_it_was_confirmed_or_that_the_time_is_over() {
        use std::io::Read;
        let told = |within: Duration, confirm: bool| {
            let (mut guardian, ours) = UnixStream::pair().expect("a pair");
            let confirmation = Confirmation::new(Instant::now(), within).telling(Some(ours));
            if confirm {
                assert!(confirmation.confirm(Instant::now()));
                assert!(
                    confirmation.confirm(Instant::now()),
                    "said twice, told once"
                );
            }
            assert_eq!(confirmation.wait(), !confirm);
            drop(confirmation);
            let mut words = Vec::new();
            guardian.read_to_end(&mut words).expect("words");
            words
        };
        assert_eq!(told(MINUTE, true), [CONFIRMED]);
        assert_eq!(told(Duration::from_millis(20), false), [EXPIRED]);
    }

    #[test]
    fn the_answer_has_the_names_that_scripts_know() {
        let open = Confirmation::new(Instant::now(), Duration::ZERO);
        let confirmed = r#"{"schema":1,"vif":3,"confirmed":true}"#;
        assert_eq!(open.reply(3).to_string(), confirmed);
        let late = Confirmation::new(Instant::now(), Duration::from_nanos(1));
        assert!(late.wait());
        for refusal in [late.reply(3), nothing_to_confirm()] {
            assert_eq!(refusal["schema"], 1, "{refusal}");
            assert!(refusal["error"].is_string(), "{refusal}");
        }
    }

    #[test]
    fn a_time_of_zero_asks_nobody() {
        let start = Instant::now();
        let confirmation = Confirmation::new(start, Duration::ZERO);
        assert_eq!(confirmation.left(start + 1000 * MINUTE), None);
        assert!(!confirmation.wait());
    }

    #[test]
    fn a_driver_that_ends_needs_no_confirmation() {
        let confirmation = Confirmation::new(Instant::now(), MINUTE);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| confirmation.wait());
            confirmation.end();
            assert!(!waiting.join().expect("no panic"));
        });
        assert!(!confirmation.expired());
    }

    #[test]
    fn the_wait_ends_when_the_time_is_over() {
        let confirmation = Confirmation::new(Instant::now(), Duration::from_millis(20));
        assert!(confirmation.wait());
    }
}
