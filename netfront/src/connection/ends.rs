//! Both ends of a vif as the store has them: for whoever only wants to know.

use hypervisor::DomId;

use super::{keys, Connection, XenbusState};
use crate::Error;

/// Both ends of a vif as the store has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ends {
    /// The state that the frontend wrote.
    pub frontend: XenbusState,
    /// The state that the backend wrote.
    pub backend: XenbusState,
    /// The domain of the backend.
    pub backend_id: Option<DomId>,
    /// The backend's directory in the store.
    pub backend_path: Option<String>,
}

impl Connection {
    /// Reads both ends' states, and where the other end is. Waits for nothing and changes nothing.
    ///
    /// # Errors
    /// When the store fails.
    pub fn ends(&mut self) -> Result<Ends, Error> {
        let own = |key: &str| keys::join(&keys::frontend(self.vif), key);
        let (state, backend, backend_id) =
            (own(keys::STATE), own(keys::BACKEND), own(keys::BACKEND_ID));
        let frontend = self.read(&state)?;
        let backend_id = self.read(&backend_id)?;
        let backend_path = self.read(&backend)?.filter(|path| !path.is_empty());
        let backend = match &backend_path {
            Some(path) => self.read(&keys::join(path, keys::STATE))?,
            None => None,
        };
        Ok(Ends {
            frontend: XenbusState::from_store(frontend.as_deref()),
            backend: XenbusState::from_store(backend.as_deref()),
            backend_id: backend_id.and_then(|text| text.trim().parse().ok().map(DomId)),
            backend_path,
        })
    }
}
