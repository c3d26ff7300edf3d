//! The drivers that run here, by the sockets at which they answer.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::failure::Failure;
use crate::ground::control_socket;

/// Which drivers a command is about: all of this machine's, unless it is told.
#[derive(Debug, Clone, Args)]
pub struct Which {
    /// Only the vif with this number.
    #[arg(long)]
    pub vif: Option<u32>,
    /// Drivers on the simulated Xen at this socket.
    #[arg(long, value_name = "SOCKET")]
    pub sim: Option<PathBuf>,
    /// A driver that was started with --control: where it answers.
    #[arg(long, value_name = "SOCKET")]
    pub control: Option<PathBuf>,
}

/// Where a driver answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The number of its vif, if that can be told without asking.
    pub vif: Option<u32>,
    /// Its socket.
    pub socket: PathBuf,
}

impl Which {
    /// The sockets there are, by the numbers of their vifs. One that is named is returned, there or not.
    pub fn places(&self) -> Vec<Place> {
        if let Some(socket) = &self.control {
            let socket = socket.clone();
            return vec![Place {
                vif: self.vif,
                socket,
            }];
        }
        if let Some(vif) = self.vif {
            return vec![Place {
                vif: Some(vif),
                socket: control_socket(self.sim.as_deref(), vif),
            }];
        }
        // As `control_socket` names them: what stands before the number, and what after.
        let zero = control_socket(self.sim.as_deref(), 0);
        scan(&zero)
    }

    /// The one driver that a command is about: the only one there is, or the one that is named.
    pub fn one(&self) -> Result<Place, Failure> {
        let mut places = self.places();
        if places.len() > 1 {
            // A driver that was killed leaves its socket behind.
            places.retain(|place| UnixStream::connect(&place.socket).is_ok());
        }
        match places.len() {
            1 => Ok(places.remove(0)),
            0 => Err(Failure::NotHere(
                "no netfront runs here: `netfront run` starts one (its socket is /run/netfront/vifN.sock, or --sim)"
                    .into(),
            )),
            _ => {
                let numbers: Vec<String> = places
                    .iter()
                    .filter_map(|place| place.vif)
                    .map(|vif| vif.to_string())
                    .collect();
                Err(Failure::Verdict(format!(
                    "there are drivers of the vifs {}: say which with --vif",
                    numbers.join(", ")
                )))
            }
        }
    }
}

/// All sockets that are named as this one of vif 0.
fn scan(zero: &Path) -> Vec<Place> {
    let name = zero
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    let (Some(directory), Some(name)) = (zero.parent(), name) else {
        return Vec::new();
    };
    let Some((before, after)) = name.rsplit_once("vif0") else {
        return Vec::new();
    };
    let before = format!("{before}vif");
    // `--sim xen` in the directory where it is.
    let directory = match directory.as_os_str().is_empty() {
        true => Path::new("."),
        false => directory,
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let number = name
            .strip_prefix(&before)
            .and_then(|rest| rest.strip_suffix(after))
            .and_then(|number| number.parse().ok());
        if let Some(vif) = number {
            found.push(Place {
                vif: Some(vif),
                socket: entry.path(),
            });
        }
    }
    found.sort_by_key(|place| place.vif);
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn sockets_are_found_by_their_names_in_the_order_of_their_vifs() {
        let directory = tempfile::tempdir().unwrap();
        for name in [
            "vif10.sock",
            "vif2.sock",
            "vif2.lock",
            "vifx.sock",
            "xen.vif3-control",
        ] {
            fs::write(directory.path().join(name), "").unwrap();
        }
        let numbers = |zero: &str| -> Vec<u32> {
            scan(&directory.path().join(zero))
                .into_iter()
                .filter_map(|place| place.vif)
                .collect()
        };
        assert_eq!(numbers("vif0.sock"), [2, 10]);
        assert_eq!(numbers("xen.vif0-control"), [3]);
        assert!(scan(Path::new("/nonexistent/vif0.sock")).is_empty());
    }

    #[test]
    fn what_is_named_is_taken_without_looking() {
        let which = Which {
            vif: Some(4),
            sim: Some("/tmp/xen".into()),
            control: None,
        };
        let place = Place {
            vif: Some(4),
            socket: "/tmp/xen.vif4-control".into(),
        };
        assert_eq!(which.places(), [place]);
    }
}
