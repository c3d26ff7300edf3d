//! The ground a domain stands on: Xen, or the simulation.

use std::sync::Arc;

use crate::restores::Restores;
#[cfg(feature = "sim")]
use crate::sim;
use crate::store::native::NativeStore;
use crate::store::{self, Store, StoreClient};
use crate::{
    events, foreign, shared, xen, Access, Counters, Counts, DomId, DomainInfo, Error,
    EventChannels, ForeignMemory, SharedPages,
};

/// This domain, on Xen or on the simulated Xen. All clones are the same domain.
#[derive(Clone, Debug)]
pub struct Domain {
    ground: Ground,
    counters: Arc<Counters>,
    restores: Arc<Restores>,
}

#[derive(Clone, Debug)]
enum Ground {
    Xen,
    #[cfg(feature = "sim")]
    Sim(Arc<sim::attachment::Attachment>),
}

impl Domain {
    /// The Xen domain that this process runs in.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] when this is no Xen domain, or its devices are not there.
    pub fn xen() -> Result<Domain, Error> {
        xen::check()?;
        Ok(Domain {
            ground: Ground::Xen,
            counters: Arc::default(),
            restores: Arc::default(),
        })
    }

    /// A domain of the simulated Xen that listens on `socket`.
    ///
    /// # Errors
    ///
    /// When nobody listens there, or a living process stands on that number already.
    #[cfg(feature = "sim")]
    pub fn simulated(socket: &std::path::Path, id: DomId) -> Result<Domain, Error> {
        let counters = Arc::<Counters>::default();
        let attachment = sim::attachment::Attachment::new(socket, id, Arc::clone(&counters))?;
        Ok(Domain {
            ground: Ground::Sim(attachment),
            counters,
            restores: Arc::default(),
        })
    }

    /// Whether this is the simulated Xen.
    pub fn is_simulated(&self) -> bool {
        !matches!(self.ground, Ground::Xen)
    }

    /// The number of this domain. It is read from the store each time, since it changes when the
    /// domain is restored or migrated.
    ///
    /// # Errors
    ///
    /// When the store cannot be read or does not say it.
    pub fn id(&self) -> Result<DomId, Error> {
        store::own_domid(&mut self.native_store()?)
    }

    /// The number that the domain had when its restores were last looked for.
    pub(crate) fn known_id(&self) -> Option<DomId> {
        self.restores.domid()
    }

    /// How many times this domain was found to have been restored or migrated since this value, or the
    /// one that it is a clone of, was made. One atomic load; it does not look.
    pub fn restores(&self) -> u64 {
        self.restores.known()
    }

    /// Looks in the store whether the domain was restored, and returns how many times are known now.
    /// From then on all event channels that were opened before answer [`Error::Restored`].
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn look_for_restore(&self) -> Result<u64, Error> {
        // Never saved, so that it needs no store for this, which may be gone when a backend ends.
        if self.known_id() == Some(DomId(0)) {
            return Ok(self.restores());
        }
        self.look_for_restore_in(&mut self.native_store()?)
    }

    /// The same over a connection to the store that is open already.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn look_for_restore_in(&self, store: &mut dyn Store) -> Result<u64, Error> {
        let restores = self.restores.look(store, || self.native_store())?;
        #[cfg(feature = "sim")]
        if let (Ground::Sim(attachment), Some(id)) = (&self.ground, self.known_id()) {
            attachment.renumber(id);
        }
        Ok(restores)
    }

    /// False when the domain may not write below `data` in its directory: then a restore under the same
    /// number is not found, and who has other signs of it says so with [`Self::assume_restored`].
    pub fn is_marked(&self) -> bool {
        self.restores.is_marked()
    }

    /// Takes the domain for restored: all event channels that were opened before are dead.
    pub fn assume_restored(&self) {
        self.restores.assume();
    }

    /// A new connection to the store, by the default client.
    ///
    /// # Errors
    ///
    /// When the store cannot be reached.
    pub fn store(&self) -> Result<Box<dyn Store>, Error> {
        self.store_with(StoreClient::default())
    }

    /// A new connection to the store, by the client named.
    ///
    /// # Errors
    ///
    /// When the store cannot be reached, or the client is not compiled in.
    pub fn store_with(&self, client: StoreClient) -> Result<Box<dyn Store>, Error> {
        match &self.ground {
            Ground::Xen => store::open(client, None),
            #[cfg(feature = "sim")]
            Ground::Sim(attachment) => store::open(client, Some(&attachment.store_socket())),
        }
    }

    /// A new connection to the store by the native client, which alone has transactions.
    ///
    /// # Errors
    ///
    /// When the store cannot be reached.
    pub fn native_store(&self) -> Result<NativeStore, Error> {
        match &self.ground {
            Ground::Xen => NativeStore::open(),
            #[cfg(feature = "sim")]
            Ground::Sim(attachment) => NativeStore::connect(&attachment.store_socket()),
        }
    }

    /// A new handle for event channels. Open it in the thread that will use it.
    ///
    /// # Errors
    ///
    /// When the hypervisor refuses, or the store cannot be read: a handle must know which restores
    /// were before it.
    pub fn events(&self) -> Result<EventChannels, Error> {
        let restores = self.look_for_restore()?;
        let ground = match &self.ground {
            Ground::Xen => events::Ground::Xen(xen::events::Handle::open(self.counters.clone())?),
            #[cfg(feature = "sim")]
            Ground::Sim(attachment) => {
                events::Ground::Sim(sim::events::Handle::open(attachment.clone())?)
            }
        };
        Ok(EventChannels::new(ground, self.clone(), restores))
    }

    /// Shares a new region of zeroed pages with `peer`, which may use them as `access` says.
    ///
    /// # Errors
    ///
    /// [`Error::GrantLimit`] when the limit of grants is reached.
    pub fn share(&self, peer: DomId, pages: usize, access: Access) -> Result<SharedPages, Error> {
        if pages == 0 {
            return Err(Error::Invalid {
                what: "Wanted to share no page at all; share one or more".into(),
            });
        }
        let ground = match &self.ground {
            Ground::Xen => shared::Ground::Xen(xen::memory::share(
                peer,
                pages,
                access,
                self.counters.clone(),
            )?),
            #[cfg(feature = "sim")]
            Ground::Sim(attachment) => {
                shared::Ground::Sim(sim::shared::share(attachment, peer, pages, access)?)
            }
        };
        Ok(SharedPages(ground))
    }

    /// The memory of another domain, as far as it is shared with this one.
    ///
    /// # Errors
    ///
    /// When the hypervisor refuses, or there is no such domain.
    pub fn foreign(&self, owner: DomId) -> Result<ForeignMemory, Error> {
        let ground = match &self.ground {
            Ground::Xen => {
                foreign::Ground::Xen(xen::memory::Foreign::open(owner, self.counters.clone())?)
            }
            #[cfg(feature = "sim")]
            Ground::Sim(attachment) => {
                foreign::Ground::Sim(sim::foreign::Foreign::open(attachment, owner)?)
            }
        };
        Ok(ForeignMemory(ground))
    }

    /// How many pages may be shared at once, by all processes together; `None` when there is no
    /// limit to be read.
    ///
    /// # Errors
    ///
    /// When the limit is there but cannot be read.
    pub fn grant_limit(&self) -> Result<Option<usize>, Error> {
        match &self.ground {
            Ground::Xen => xen::memory::grant_limit(),
            #[cfg(feature = "sim")]
            Ground::Sim(attachment) => Ok(Some(attachment.grant_limit())),
        }
    }

    /// Raises the limit that [`Self::grant_limit`] tells, for all processes. For who has the right to.
    ///
    /// # Errors
    ///
    /// Without the right to (root), and on the simulation, whose limit is fixed.
    pub fn raise_grant_limit(&self, pages: usize) -> Result<(), Error> {
        match &self.ground {
            Ground::Xen => xen::memory::raise_grant_limit(pages),
            #[cfg(feature = "sim")]
            Ground::Sim(_) => Err(Error::Unsupported {
                what: "Raising the limit of shared pages",
                by: "the simulated Xen",
                hint: "start it with another limit",
            }),
        }
    }

    /// Every domain of the machine, in the order of their numbers: for dom0 alone, through the
    /// libxenctrl of Xen 4.17. It blocks for some hypercalls; not for the data path.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] in another domain, with another release of Xen or without its
    /// library; [`Error::Unsupported`] on the simulation, which gives nobody processor time.
    pub fn list_domains(&self) -> Result<Vec<DomainInfo>, Error> {
        match &self.ground {
            Ground::Xen => xen::domains::list(&self.counters),
            #[cfg(feature = "sim")]
            Ground::Sim(_) => Err(Error::Unsupported {
                what: "The list of domains with their CPU time",
                by: "the simulated Xen",
                hint: "its domains are processes: ask the kernel (`ps`)",
            }),
        }
    }

    /// What this domain has done so far.
    pub fn counters(&self) -> Counts {
        self.counters.snapshot()
    }
}
