//! What things cost: one committed file, `parameters.toml`.

/// Declares the parameters once: as fields, and by their names.
macro_rules! parameters {
    ($($name:ident),+ $(,)?) => {
        /// The parameters of the harness, as `parameters.toml` explains them.
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub struct Parameters {
            $(pub $name: u64,)+
        }

        impl Parameters {
            /// The names of all.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name)),+];

            fn none() -> Self {
                Self { $($name: 0),+ }
            }

            /// The parameter of this name.
            pub fn field(&mut self, name: &str) -> Option<&mut u64> {
                match name {
                    $(stringify!($name) => Some(&mut self.$name),)+
                    _ => None,
                }
            }
        }
    };
}

parameters! {
    run_us, warm_up_us, ring_slots, backend_packets, packet_ns, visit_ns, event_ns, complete_ns, look_ns, switch_ns,
    light_ns, heavy_ns, phase_us, turn_us, queue_packets, burst_packets, slow_kpps, fast_kpps, short_hog_us,
    long_hog_us, capture_low_kpps, capture_kpps, capture_high_kpps, stop_us, hold_us, queues, connections, total_kpps, steer_ns,
    work_ns, wake_ns, wake_latency_ns, lock_ns, lane_packets, rebind_us,
}

impl Parameters {
    /// Those that are no property of the world: how long the harness runs.
    const OURS: [&'static str; 2] = ["run_us", "warm_up_us"];

    /// Those that only `many_cores` looks at: on one core such a world is the committed one.
    const SEVERAL_CORES: [&'static str; 10] = [
        "queues",
        "connections",
        "total_kpps",
        "steer_ns",
        "work_ns",
        "wake_ns",
        "wake_latency_ns",
        "lock_ns",
        "lane_packets",
        "rebind_us",
    ];

    /// The committed ones.
    pub fn committed() -> Self {
        Self::parse(include_str!("parameters.toml")).expect("parameters.toml is as it was tested")
    }

    /// Reads `name = number` lines.
    ///
    /// # Errors
    /// What is wrong with which line, or what is missing.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parameters = Self::none();
        let mut missing = Self::NAMES.to_vec();
        for (number, line) in text.lines().enumerate() {
            let number = number + 1;
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let wrong =
                || format!("line {number}: `name = number` is wanted, and this is `{line}`");
            let (name, value) = line.split_once('=').ok_or_else(wrong)?;
            let value = value.trim().replace('_', "").parse().map_err(|_| wrong())?;
            let name = name.trim();
            let Some(field) = parameters.field(name) else {
                return Err(format!("line {number}: there is no parameter `{name}`"));
            };
            *field = value;
            missing.retain(|&left| left != name);
        }
        match missing.is_empty() {
            true => Ok(parameters),
            false => Err(format!(
                "these parameters are missing: {}",
                missing.join(", ")
            )),
        }
    }

    /// The same world with one parameter at half, and with it at one and a half; for each parameter.
    pub fn variations(&self) -> Vec<(String, Self)> {
        self.varied(|_| true)
    }

    /// Those of them that differ for one core.
    pub fn variations_of_one_core(&self) -> Vec<(String, Self)> {
        self.varied(|name| !Self::SEVERAL_CORES.contains(&name))
    }

    fn varied(&self, is_wanted: impl Fn(&str) -> bool) -> Vec<(String, Self)> {
        let world = Self::NAMES.iter().filter(|name| !Self::OURS.contains(name));
        let mut all = Vec::new();
        for name in world.filter(|name| is_wanted(name)) {
            for (halves, word) in [(1, "half"), (3, "one and a half")] {
                let mut varied = self.clone();
                if let Some(field) = varied.field(name) {
                    *field = (*field * halves / 2).max(1);
                }
                all.push((format!("{name} at {word}"), varied));
            }
        }
        all
    }
}
