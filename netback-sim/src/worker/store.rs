//! The store side of the thread: what the frontend shows is read, [`decide`]
//! says what to do, and here it is done. A store that fails is opened again; the rings go on.

use std::time::{Duration, Instant};

use hypervisor::Store;

use super::Worker;
use crate::backend::Error;
use crate::keys::{FrontKeys, KeyError};
use crate::state::State;
use crate::vif::{Fault, Vif};
use crate::xenbus::{decide, Situation, Step};

/// Pause between attempts to reach a lost store, and how long they go on.
const STORE_RETRY: Duration = Duration::from_millis(200);
const STORE_PATIENCE: Duration = Duration::from_secs(5);
/// Events taken in one go. They all say the same, and a guest can make them faster than they are
/// taken.
const EVENTS: usize = 256;

impl Worker {
    pub(super) fn watch(&mut self) -> Result<(), KeyError> {
        let paths = self.paths.clone();
        let store = self.store()?;
        for (path, token) in paths.watches() {
            store.watch(&path, token)?;
        }
        Ok(())
    }

    /// The store; an error while it is lost.
    fn store(&mut self) -> Result<&mut dyn Store, KeyError> {
        match &mut self.store {
            Some(store) => Ok(store.as_mut()),
            None => Err(KeyError::Store(hypervisor::Error::Gone {
                service: "The store",
                doing: "waiting for it to come back".into(),
            })),
        }
    }

    /// In this state the frontend's keys are complete, and a connection is wanted.
    pub(super) fn connects_at(&self, state: State) -> bool {
        state == State::Connected || (state == State::Initialised && !self.config.strict)
    }

    /// Reads what the frontend shows; its keys only if they are wanted and worth reading.
    pub(super) fn read_front(&mut self, keys: bool) -> Result<Front, KeyError> {
        let (paths, features) = (self.paths.clone(), self.config.features);
        let state = paths.read_front_state(self.store()?)?;
        let online = paths.read_online(self.store()?)?;
        let keys = if keys && self.connects_at(state) {
            match paths.read_front(self.store()?, &features) {
                Err(KeyError::Store(error)) => return Err(KeyError::Store(error)),
                other => Some(other),
            }
        } else {
            None
        };
        Ok(Front {
            state,
            online,
            keys,
        })
    }

    /// Takes the events of the store and does what they ask for. A store that fails is given up
    /// and opened again: the rings do not need it.
    pub(super) fn take_store_events(&mut self) -> Result<(), Error> {
        if self.store.is_none() {
            // It is opened again at its time.
            return Ok(());
        }
        self.store_checked = Instant::now();
        match self.react_to_events() {
            Ok(()) => Ok(()),
            Err(error) => self.lose_store(error),
        }
    }

    /// One reaction to all that has come. More may come meanwhile, without end if the guest wants
    /// it so: that is for the next call, after the rings have had their turn.
    fn react_to_events(&mut self) -> Result<(), KeyError> {
        let mut taken = 0;
        while taken < EVENTS && self.store()?.next_event(Duration::ZERO)?.is_some() {
            taken += 1;
        }
        // To read the keys may take events off the wire too, and nothing would wake us for them.
        self.store_pending = taken > 0;
        if taken == 0 || self.finished {
            return Ok(());
        }
        self.react(false)
    }

    /// Looks at the frontend and does what its state asks for.
    fn react(&mut self, patience_over: bool) -> Result<(), KeyError> {
        let strict = self.config.strict;
        // netback looks at the keys when it connects and at no other time. Here they are known
        // from then until the frontend shows another state.
        let unknown = patience_over || self.known.is_none();
        let front = self.read_front(unknown || !strict)?;
        self.shared.update(|status| status.front = front.state);
        let fresh = unknown || (!strict && self.known.as_ref() != Some(&front.print()));
        let steps = decide(Situation {
            own: self.own,
            front: front.state,
            online: front.online,
            fresh,
            strict,
        });
        let keyed = self.connects_at(front.state);
        if self.refused != Some(front.state) {
            self.refused = None;
        }
        if fresh || !keyed {
            self.stale_until = None;
        }
        if !keyed {
            // What comes next is new, even if it looks the same: the next process of a guest is
            // given the same references and ports as the one before.
            self.known = None;
        }
        tracing::debug!(own = %self.own, front = %front.state, ?steps, "the store changed");
        for step in steps {
            match step {
                Step::Connect => self.connect(&front, patience_over)?,
                Step::Refuse => self.refuse(front.state)?,
                step => self.step(step)?,
            }
        }
        if self.hotplug_awaited {
            self.show_connected()?;
        }
        self.follow_multicast()
    }

    /// A frontend may switch its wish at any time, if that was offered.
    fn follow_multicast(&mut self) -> Result<(), KeyError> {
        let features = &self.config.features;
        if self.vif.is_none() || !features.multicast_control || !features.dynamic_multicast_control
        {
            return Ok(());
        }
        let paths = self.paths.clone();
        let wanted = paths.read_multicast(self.store()?)?;
        if let Some(vif) = &mut self.vif {
            vif.filter_multicast(wanted);
        }
        Ok(())
    }

    pub(super) fn step(&mut self, step: Step) -> Result<(), KeyError> {
        let (paths, features) = (self.paths.clone(), self.config.features);
        match step {
            Step::Disconnect => {
                if let Some(vif) = &mut self.vif {
                    vif.answer_last_question();
                }
                self.disconnect();
            }
            Step::Announce => paths.announce(self.store()?, &features)?,
            Step::Show(state) => {
                paths.write_state(self.store()?, state)?;
                self.shown(state);
            }
            Step::Connect | Step::Refuse => {}
            Step::Finish => self.finished = true,
        }
        Ok(())
    }

    fn shown(&mut self, state: State) {
        if self.own != state {
            tracing::info!(vif = %self.paths.frontend, from = %self.own, to = %state, "state");
        }
        self.own = state;
        self.shared.update(|status| status.own = state);
        if let Some(vif) = self.vif.as_mut().filter(|_| state == State::Connected) {
            vif.shown_connected();
        }
    }

    fn connect(&mut self, front: &Front, patience_over: bool) -> Result<(), KeyError> {
        self.known = Some(front.print());
        let connected = match &front.keys {
            Some(Ok(keys)) => Vif::connect(
                &self.domain,
                &self.paths,
                keys,
                self.config.features,
                self.config.reach,
                self.config.rx_stall_timeout,
                self.shared.counters.clone(),
            )
            .map_err(|error| error.to_string()),
            Some(Err(error)) => Err(error.to_string()),
            None => return Ok(()),
        };
        match connected {
            Ok(vif) => {
                tracing::info!(features = %vif.front(), "connected");
                self.config.peer.connected(vif.front());
                self.vif = Some(vif);
                self.shared.counters.connects.add(1);
                self.show_connected()
            }
            // It was worth a try; there is most likely nobody behind these keys.
            Err(why) if patience_over => {
                tracing::warn!(%why, "the frontend of an earlier backend is gone; waiting");
                Ok(())
            }
            Err(why) => self.take_down(&why),
        }
    }

    /// Shows that we are connected once the toolstack's script is done, as netback does
    /// (`hotplug_status_changed`): until then frames would go to an interface that is on no bridge. The
    /// rings are served meanwhile.
    fn show_connected(&mut self) -> Result<(), KeyError> {
        let paths = self.paths.clone();
        if paths.read_hotplug(self.store()?)? {
            self.hotplug_awaited = false;
            return self.step(Step::Show(State::Connected));
        }
        if !self.hotplug_awaited {
            self.hotplug_awaited = true;
            tracing::info!(vif = %paths.backend, "waiting for hotplug-status = connected");
        }
        self.own = State::Connected;
        Ok(())
    }

    /// The frontend shows what no frontend may. As in netback the rings stay, and so does the state
    /// that we are in: what is shown asks the frontend to close.
    fn refuse(&mut self, front: State) -> Result<(), KeyError> {
        // Once: it may write the same without end.
        if self.refused.replace(front) == Some(front) {
            return Ok(());
        }
        let (own, number) = (self.own, front as u8);
        let why = format!(
            "the frontend shows state {number} ({front}), which a frontend of this backend may not"
        );
        self.shared.counters.faults.add(1);
        self.explain(&why)?;
        self.step(Step::Show(State::Closing))?;
        self.own = own;
        Ok(())
    }

    fn disconnect(&mut self) {
        self.hotplug_awaited = false;
        if self.vif.take().is_some() {
            self.shared.counters.disconnects.add(1);
            // They went with it.
            self.shared.counters.gref_mapped.set(0);
            self.shared.counters.rx_stalled.set(0);
            self.config.peer.disconnected();
        }
    }

    /// The guest broke the protocol: the vif goes down with a reason, and stays down until the
    /// frontend begins anew.
    #[cold]
    pub(super) fn fail(&mut self, fault: &Fault) {
        self.shared.counters.faults.add(1);
        if let Err(error) = self.take_down(&fault.to_string()) {
            // The rings are gone in any case; the state is shown when the store is back.
            let _ = self.lose_store(error);
        }
    }

    fn take_down(&mut self, why: &str) -> Result<(), KeyError> {
        self.disconnect();
        self.explain(why)?;
        self.step(Step::Show(State::Closing))?;
        self.step(Step::Show(State::Closed))
    }

    fn explain(&mut self, why: &str) -> Result<(), KeyError> {
        tracing::error!(vif = %self.paths.frontend, %why, "the vif goes down");
        self.shared
            .update(|status| status.fault = Some(why.to_owned()));
        let paths = self.paths.clone();
        paths.write_error(self.store()?, why)
    }

    fn lose_store(&mut self, error: KeyError) -> Result<(), Error> {
        let now = Instant::now();
        let since = *self.store_lost.get_or_insert(now);
        if now.duration_since(since) >= STORE_PATIENCE {
            return Err(error.into());
        }
        tracing::warn!(%error, "the store failed; opening it again");
        self.store = None;
        self.store_pending = false;
        self.retry_at = Some(now + STORE_RETRY);
        Ok(())
    }

    pub(super) fn check_deadlines(&mut self) -> Result<(), Error> {
        let over = |at: Option<Instant>| at.is_some_and(|at| Instant::now() >= at);
        if self.retry_at.is_some() && over(self.retry_at) {
            self.retry_at = None;
            if let Err(error) = self.reopen_store() {
                self.lose_store(error)?;
            }
        }
        if self.stale_until.is_some() && over(self.stale_until) {
            self.stale_until = None;
            tracing::info!("the frontend did not notice the new backend; taking over its rings");
            if let Err(error) = self.react(true) {
                self.lose_store(error)?;
            }
            self.take_store_events()?;
        }
        Ok(())
    }

    fn reopen_store(&mut self) -> Result<(), KeyError> {
        self.store = Some(self.domain.store()?);
        self.watch()?;
        // What could not be written while it was gone.
        match (&self.vif, self.own) {
            (None, State::Connected) => self.step(Step::Show(State::Closed))?,
            (Some(_), State::Connected) => self.show_connected()?,
            (_, own) => self.step(Step::Show(own))?,
        }
        self.react(false)?;
        self.react_to_events()?;
        self.store_lost = None;
        Ok(())
    }

    /// Closes in order: says so, lets go, and gives the frontend some time to do the same.
    pub(super) fn close(&mut self) {
        let deadline = Instant::now() + self.config.close_patience;
        self.disconnect();
        if let Err(error) = self.close_by(deadline) {
            tracing::warn!(%error, "closing in order failed");
        }
    }

    fn close_by(&mut self, deadline: Instant) -> Result<(), KeyError> {
        self.step(Step::Show(State::Closing))?;
        let paths = self.paths.clone();
        loop {
            let front = paths.read_front_state(self.store()?)?;
            self.shared.update(|status| status.front = front);
            let busy = matches!(
                front,
                State::Initialised | State::Connected | State::Closing
            );
            let left = deadline.saturating_duration_since(Instant::now());
            if !busy || left.is_zero() {
                break;
            }
            self.store()?.next_event(left)?;
        }
        self.step(Step::Show(State::Closed))
    }
}

/// What was read of the frontend.
pub(super) struct Front {
    pub(super) state: State,
    online: bool,
    keys: Option<Result<FrontKeys, KeyError>>,
}

impl Front {
    /// All that tells one connection from another. Keys that cannot be used have a print too, so
    /// that they are complained of once.
    pub(super) fn print(&self) -> String {
        match &self.keys {
            None => String::new(),
            // Its wish about multicast may change while it is connected.
            Some(Ok(FrontKeys {
                queues,
                control,
                features,
            })) => {
                let mut features = *features;
                features.multicast_control = false;
                format!("{queues:?} {control:?} {features:?}")
            }
            Some(Err(error)) => error.to_string(),
        }
    }
}
