//! The only file that knows a store path.
//!
//! Own paths are relative: they stay right when a restore gives the domain another number. Sources:
//! xen/include/public/io/netif.h, and libxl for what the toolstack writes.

use super::XenbusState;

/// The frontend's directory, relative to the domain's own.
pub fn frontend(vif: u32) -> String {
    format!("device/vif/{vif}")
}

/// `key` in `directory`.
pub fn join(directory: &str, key: &str) -> String {
    format!("{directory}/{key}")
}

// What the toolstack writes in the frontend's directory.
pub const BACKEND: &str = "backend";
pub const BACKEND_ID: &str = "backend-id";
pub const MAC: &str = "mac";
pub const MTU: &str = "mtu";
pub const TRUSTED: &str = "trusted";
/// XAPI's way to say that the cable is out (frontend's directory).
pub const DISCONNECT: &str = "disconnect";
/// XAPI's way to say how fast the network is: `10`, `10G`, `100M` (frontend's directory).
pub const SPEED: &str = "speed";
/// Both ends.
pub const STATE: &str = "state";
/// netif.h's way to say it (backend's directory).
pub const CARRIER: &str = "carrier";

// What the backend offers.
pub const FEATURE_RX_COPY: &str = "feature-rx-copy";
pub const FEATURE_SG: &str = "feature-sg";
pub const FEATURE_GSO_TCPV4: &str = "feature-gso-tcpv4";
pub const FEATURE_GSO_TCPV6: &str = "feature-gso-tcpv6";
pub const FEATURE_NO_CSUM_OFFLOAD: &str = "feature-no-csum-offload";
pub const FEATURE_IPV6_CSUM_OFFLOAD: &str = "feature-ipv6-csum-offload";
pub const FEATURE_SPLIT_EVENT_CHANNELS: &str = "feature-split-event-channels";
pub const FEATURE_CTRL_RING: &str = "feature-ctrl-ring";
pub const MULTI_QUEUE_MAX_QUEUES: &str = "multi-queue-max-queues";
pub const FEATURE_MULTICAST_CONTROL: &str = "feature-multicast-control";
pub const FEATURE_DYNAMIC_MULTICAST_CONTROL: &str = "feature-dynamic-multicast-control";
/// Linux's header only; never asked for.
pub const FEATURE_XDP_HEADROOM: &str = "feature-xdp-headroom";

// What the frontend writes.
pub const TX_RING_REF: &str = "tx-ring-ref";
pub const RX_RING_REF: &str = "rx-ring-ref";
pub const EVENT_CHANNEL: &str = "event-channel";
pub const EVENT_CHANNEL_TX: &str = "event-channel-tx";
pub const EVENT_CHANNEL_RX: &str = "event-channel-rx";
pub const REQUEST_RX_COPY: &str = "request-rx-copy";
pub const FEATURE_RX_NOTIFY: &str = "feature-rx-notify";
pub const REQUEST_MULTICAST_CONTROL: &str = "request-multicast-control";
pub const CTRL_RING_REF: &str = "ctrl-ring-ref";
pub const EVENT_CHANNEL_CTRL: &str = "event-channel-ctrl";
pub const MULTI_QUEUE_NUM_QUEUES: &str = "multi-queue-num-queues";

/// Keys that an earlier driver may have left and that would be read as ours: the flat ones must be
/// absent beside `queue-N/`, a single channel beside split ones, and a feature that is not wanted.
pub const STALE: [&str; 18] = [
    TX_RING_REF,
    RX_RING_REF,
    EVENT_CHANNEL,
    EVENT_CHANNEL_TX,
    EVENT_CHANNEL_RX,
    REQUEST_RX_COPY,
    FEATURE_RX_NOTIFY,
    FEATURE_SG,
    FEATURE_GSO_TCPV4,
    FEATURE_GSO_TCPV6,
    FEATURE_NO_CSUM_OFFLOAD,
    FEATURE_IPV6_CSUM_OFFLOAD,
    MULTI_QUEUE_NUM_QUEUES,
    REQUEST_MULTICAST_CONTROL,
    CTRL_RING_REF,
    EVENT_CHANNEL_CTRL,
    "xdp-headroom",
    "feature-persistent",
];

/// The directory of one of several queues, in the frontend's.
pub fn queue(number: usize) -> String {
    format!("{QUEUE}{number}")
}

const QUEUE: &str = "queue-";

/// Whether a node of the frontend's directory is that of a queue.
pub fn is_queue(name: &str) -> bool {
    let number = name.strip_prefix(QUEUE);
    number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The value that stands for a state.
pub fn state_value(state: XenbusState) -> String {
    state.number().to_string()
}
