//! What this machine runs on, as far as its system says: whether a battery is being used up, and whether the way to the
//! Internet is a mobile one, which is paid by the byte as a rule.
//!
//! On Linux the system's files under `/sys` and `/proc` tell. Elsewhere, and where they say nothing, a machine counts as
//! one on the mains with a link that costs nothing: its user can still say that it shall not serve.

use std::{fs, path::Path};

use crate::candidacy::{Machinery, Power};

/// Looks at the machine. `memory` is what the user grants.
pub(crate) fn look(memory: u64) -> Machinery {
    Machinery {
        memory,
        power: power(Path::new("/sys/class/power_supply")),
        is_metered: is_metered(Path::new("/sys/class/net"), Path::new("/proc/net/route")),
    }
}

/// A battery that is being used up, unless some other supply is connected.
fn power(supplies: &Path) -> Power {
    let (mut discharging, mut online) = (false, false);
    for supply in fs::read_dir(supplies).into_iter().flatten().flatten() {
        let read = |name: &str| fs::read_to_string(supply.path().join(name)).unwrap_or_default();
        // Batteries of mice and headsets have the scope `Device`.
        match read("type").trim() {
            "Battery" if read("scope").trim() != "Device" => discharging |= read("status").trim() == "Discharging",
            "Mains" | "USB" => online |= read("online").trim() == "1",
            _ => {}
        }
    }
    if discharging && !online { Power::Battery } else { Power::Mains }
}

/// True if the default route leads over a modem for mobile networks.
fn is_metered(devices: &Path, routes: &Path) -> bool {
    let routes = fs::read_to_string(routes).unwrap_or_default();
    let default = routes.lines().skip(1).filter_map(|line| {
        let mut columns = line.split_whitespace();
        let (device, destination) = (columns.next()?, columns.next()?);
        (destination == "00000000").then_some(device)
    });
    let is_mobile = |device: &str| {
        let about = fs::read_to_string(devices.join(device).join("uevent")).unwrap_or_default();
        about.lines().any(|line| line == "DEVTYPE=wwan")
    };
    default.into_iter().any(is_mobile)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, name: &str, text: &str) {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn a_battery_counts_while_it_is_used_up() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        assert_eq!(power(at), Power::Mains, "a server says nothing");
        write(at, "BAT0/type", "Battery\n");
        write(at, "BAT0/status", "Discharging\n");
        assert_eq!(power(at), Power::Battery);
        write(at, "AC/type", "Mains\n");
        write(at, "AC/online", "1\n");
        assert_eq!(power(at), Power::Mains);
        write(at, "AC/online", "0\n");
        write(at, "BAT0/status", "Full\n");
        assert_eq!(power(at), Power::Mains);
        write(at, "mouse/type", "Battery\n");
        write(at, "mouse/scope", "Device\n");
        write(at, "mouse/status", "Discharging\n");
        assert_eq!(power(at), Power::Mains);
    }

    #[test]
    fn a_mobile_default_route_is_metered() {
        let folder = tempfile::tempdir().unwrap();
        let (devices, routes) = (folder.path().join("net"), folder.path().join("route"));
        let table =
            |device: &str| format!("Iface\tDestination\tGateway\n{device}\t00000000\t0101A8C0\neth0\t0001A8C0\t0\n");
        write(&devices, "wwan0/uevent", "INTERFACE=wwan0\nDEVTYPE=wwan\n");
        write(&devices, "eth0/uevent", "INTERFACE=eth0\n");
        assert!(!is_metered(&devices, &routes));
        fs::write(&routes, table("eth0")).unwrap();
        assert!(!is_metered(&devices, &routes));
        fs::write(&routes, table("wwan0")).unwrap();
        assert!(is_metered(&devices, &routes));
    }
}
