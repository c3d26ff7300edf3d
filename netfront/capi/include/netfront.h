/*
 * A network frontend for Xen guests in user space, for C.
 *
 * A vif is opened, used and closed by one thread, which owns the handle; another thread's calls are refused with
 * NETFRONT_ERROR_THREAD. Only netfront_wake(), netfront_stat() and netfront_stats() are for every thread, until
 * netfront_close() is called. A thread may own several handles.
 *
 * The loop of a program:
 *
 *     netfront_receive(nf, 64, callback, user);   what came
 *     netfront_send(nf, data, len, NULL);         what is to go
 *     netfront_flush(nf);                         once a batch
 *     netfront_wait(nf, 1000);                    until there is more
 *
 * Every call answers 0 or more, or one of enum netfront_error, which are less than 0. After
 * NETFRONT_ERROR_BROKEN and NETFRONT_ERROR_RESTORED, and the changes of the same names, netfront_reconnect().
 *
 * Link with `pkg-config --libs netfront`.
 */

#ifndef NETFRONT_H
#define NETFRONT_H

/* Made by cbindgen from src/abi.rs and src/types.rs; a test tells when it is old. */

#include <stddef.h>
#include <stdint.h>

// The most pieces that netfront_sendv() takes.
#define NETFRONT_PIECES_MAX 64

// What a call answers when it fails. Everything else that a call may answer is 0 or greater.
//
// netfront_error_text() says what was wanted, what was found and what to do.
enum netfront_error {
    // Nothing failed.
    NETFRONT_ERROR_NONE = 0,
    // An argument makes no sense, or is NULL.
    NETFRONT_ERROR_INVALID = -1,
    // There is no Xen here, or no simulated one at that socket, or a device is missing.
    NETFRONT_ERROR_UNAVAILABLE = -2,
    // The domain has no such vif.
    NETFRONT_ERROR_NO_VIF = -3,
    // The backend did not move on in time.
    NETFRONT_ERROR_DEADLINE = -4,
    // There is no room to send: netfront_flush(), netfront_wait(), and try again.
    NETFRONT_ERROR_FULL = -5,
    // A packet has 1 to 65535 bytes, in at most 18 slots, or the buffer is too small for it.
    NETFRONT_ERROR_LENGTH = -6,
    // The backend left or broke the contract: netfront_reconnect().
    NETFRONT_ERROR_BROKEN = -7,
    // The domain was restored or migrated: netfront_reconnect().
    NETFRONT_ERROR_RESTORED = -8,
    // There is no connection, since the last netfront_reconnect() failed: call it again.
    NETFRONT_ERROR_DISCONNECTED = -9,
    // The call was made from inside the callback of netfront_receive().
    NETFRONT_ERROR_BUSY = -10,
    // The call was made by another thread than the one that opened.
    NETFRONT_ERROR_THREAD = -11,
    // The operating system or the hypervisor refused.
    NETFRONT_ERROR_SYSTEM = -12,
    // A bug of this library: nothing but netfront_close() is possible with this handle.
    NETFRONT_ERROR_BUG = -13,
};

// What happens to a page after its packet.
enum netfront_policy {
    // Pages are granted once; small packets are copied, large ones lent. For use.
    NETFRONT_POLICY_POOL = 0,
    // A grant for every packet. For comparisons.
    NETFRONT_POLICY_PER_PACKET = 1,
    // Pages are granted once, every packet is copied. For comparisons.
    NETFRONT_POLICY_COPY_ALWAYS = 2,
    // Pages are granted in batches and used once. For comparisons.
    NETFRONT_POLICY_NO_RECYCLE = 3,
};

// What is known about a packet's TCP or UDP checksum.
enum netfront_checksum {
    // The field is said to be complete, and nobody has checked.
    NETFRONT_CHECKSUM_NONE = 0,
    // The field holds the sum of the pseudo header only: to be filled in before it goes out on a wire.
    NETFRONT_CHECKSUM_BLANK = 1,
    // It was checked, or needs no check.
    NETFRONT_CHECKSUM_VALIDATED = 2,
};

// Whether a packet stands for several segments.
enum netfront_gso {
    // It is one packet.
    NETFRONT_GSO_NONE = 0,
    // Several segments of TCP over IPv4.
    NETFRONT_GSO_TCPV4 = 1,
    // Several segments of TCP over IPv6.
    NETFRONT_GSO_TCPV6 = 2,
};

// What the backend takes: bits of what netfront_features() answers.
enum netfront_feature {
    // Packets larger than a page.
    NETFRONT_FEATURE_SG = 1,
    // NETFRONT_GSO_TCPV4.
    NETFRONT_FEATURE_GSO_TCPV4 = 2,
    // NETFRONT_GSO_TCPV6.
    NETFRONT_FEATURE_GSO_TCPV6 = 4,
    // NETFRONT_CHECKSUM_BLANK over IPv4.
    NETFRONT_FEATURE_CHECKSUM_IPV4 = 8,
    // NETFRONT_CHECKSUM_BLANK over IPv6.
    NETFRONT_FEATURE_CHECKSUM_IPV6 = 16,
    // The backend is not trusted: everything is copied before it is looked at.
    NETFRONT_FEATURE_UNTRUSTED = 32,
};

// Why netfront_wait() and netfront_woken() returned.
enum netfront_event {
    // Nothing happened in time.
    NETFRONT_EVENT_TIMEOUT = 0,
    // There are packets or answers, or there may be.
    NETFRONT_EVENT_WORK = 1,
    // The link changed (see netfront_next_change()), or somebody called netfront_wake().
    NETFRONT_EVENT_CALLED = 2,
};

// What changed, as netfront_next_change() answers.
enum netfront_change {
    // Nothing more.
    NETFRONT_CHANGE_NONE = 0,
    // The backend is no longer connected: netfront_reconnect(). The value is its state in the store.
    NETFRONT_CHANGE_BACKEND_LEFT = 1,
    // The domain was restored or migrated: netfront_reconnect().
    NETFRONT_CHANGE_RESTORED = 2,
    // The cable was put in (value 1) or pulled out (value 0).
    NETFRONT_CHANGE_CARRIER = 3,
    // The value is the new MTU.
    NETFRONT_CHANGE_MTU = 4,
    // The backend broke the contract: netfront_reconnect().
    NETFRONT_CHANGE_BROKEN = 5,
    // The network is said to be as fast as the value, in megabits a second; 0: nothing is said any more.
    NETFRONT_CHANGE_SPEED = 6,
};

// A vif, as `struct netfront` of the header.
//
// All of it belongs to the thread that opened, but for `waker` and `stats`, which any thread may use.
struct netfront;

// How to connect. What is 0 or NULL has its default, so `struct netfront_options options = { 0 };` is a good
// start.
struct netfront_options {
    // The socket of a simulated Xen; NULL for the Xen domain that the program runs in.
    const char *sim;
    // The vif's number.
    uint32_t vif;
    // The domain to be on the simulated Xen; 0 for domain 1. On Xen it must be 0.
    uint32_t domid;
    // One of enum netfront_policy.
    uint32_t policy;
    // Packets shorter than this are copied whole, others are lent in their pages. Bytes; 0 for 256.
    uint32_t threshold;
    // Not 0: copy everything out of shared memory before it is looked at, and lend nothing.
    uint32_t untrusted;
    // How long each step of connecting may take. Milliseconds; 0 for 10000.
    uint32_t deadline_ms;
    // For later versions; 0.
    uint64_t reserved[4];
};

// Bytes of a packet that lie together.
struct netfront_piece {
    // The first of them.
    const uint8_t *data;
    // How many.
    size_t len;
};

// Facts about a packet that are not in its bytes.
struct netfront_offload {
    // One of enum netfront_checksum.
    uint32_t checksum;
    // One of enum netfront_gso.
    uint32_t gso;
    // Payload bytes of each segment; 0 if it is one packet, at most 65535.
    uint32_t gso_size;
    // For later versions; 0.
    uint32_t reserved;
};

// A received packet, lent for the time of the callback. From the Ethernet header on, without FCS.
//
// The first piece was copied out of shared memory: the whole packet if it is small, up to 128 bytes of headers
// if it is large. The other pieces are the granted pages: a backend that breaks the contract can still
// change them, so decide nothing by them that you do not check on a copy.
struct netfront_packet {
    // The bytes, in order.
    const struct netfront_piece *pieces;
    // How many pieces.
    size_t count;
    // Bytes of all pieces together.
    size_t len;
    // Checksum and segmentation, as the backend gave them.
    struct netfront_offload offload;
};

// Takes one packet, which is gone when this returns. It must not throw or jump out, and of the handle that
// receives it may call nothing (NETFRONT_ERROR_BUSY): answers wait until netfront_receive() has returned.
typedef void (*netfront_deliver)(void *user, const struct netfront_packet *packet);

// Takes one counter: its name, its value, and what it counts in a sentence.
typedef void (*netfront_count)(void *user, const char *name, uint64_t value, const char *meaning);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The version of the library, as in "0.1.0".
const char *netfront_version(void);

// Connects a vif and makes the calling thread its owner: only this thread may use the handle, but for
// netfront_wake(), netfront_stat() and netfront_stats(). Options that are NULL are all defaults.
//
// Answers 0 and a handle in `out`, or an error and NULL in `out`; netfront_error_text(NULL) tells more.
int netfront_open(const struct netfront_options *options,
                  struct netfront **out);

// Says goodbye to the backend and frees all, whatever it answers. NULL is allowed.
//
// Answers 0; an error if the backend did not follow in time (all is freed, netfront_error_text(NULL) tells
// more); NETFRONT_ERROR_BUSY or NETFRONT_ERROR_THREAD if the caller may not close, and then nothing is freed.
int netfront_close(struct netfront *nf);

// Negotiates everything anew, after the backend left or broke the contract, or the domain was restored. Counters
// go on. netfront_fd() stays the same; MAC, MTU and features may differ.
//
// Answers 0, or an error: then there is no connection, and this may be called again, after a pause.
int netfront_reconnect(struct netfront *nf);

// Takes up to `max` packets, gives each to `callback` with `user`, and posts pages for the next ones.
//
// Answers how many packets there were; fewer than `max` means that nothing is left. A packet is good only until
// its callback returns.
int netfront_receive(struct netfront *nf,
                     size_t max,
                     netfront_deliver callback,
                     void *user);

// Copies a packet of `len` bytes, from the Ethernet header on, into pages for the backend. It is shown to the
// backend by netfront_flush(). `offload` may be NULL: nothing is known.
//
// Answers 0, NETFRONT_ERROR_FULL, or another error. Only send what netfront_features() says the backend takes.
int netfront_send(struct netfront *nf,
                  const void *data,
                  size_t len,
                  const struct netfront_offload *offload);

// The same for a packet in `count` pieces, at most NETFRONT_PIECES_MAX.
int netfront_sendv(struct netfront *nf,
                   const struct netfront_piece *pieces,
                   size_t count,
                   const struct netfront_offload *offload);

// Shows the backend all packets since the last call with at most one event, and takes back the pages of packets that
// it has sent. Call it once a batch, before waiting.
int netfront_flush(struct netfront *nf);

// How many slots of sent packets the backend has not answered. At 0 all is sent.
int netfront_unanswered(struct netfront *nf);

// Sleeps until there is work, the link changes, somebody calls netfront_wake(), or the time is over; less than 0 is
// for ever. No event is lost between two calls. A signal may end it early.
//
// Answers one of enum netfront_event, or an error.
int netfront_wait(struct netfront *nf,
                  int timeout_ms);

// Ends the sleep of the owner in netfront_wait(), or its next one. For any thread, not for a signal handler.
int netfront_wake(const struct netfront *nf);

// A file descriptor for a poll of your own, the same until netfront_close(), which closes it. The way to sleep:
// netfront_arm(); if it answers 0, poll for POLLIN; then netfront_woken().
int netfront_fd(struct netfront *nf);

// Before a poll of your own: asks for the next event. Answers 1 if there is work: do not sleep.
int netfront_arm(struct netfront *nf);

// After a poll of your own. Answers one of enum netfront_event.
int netfront_woken(struct netfront *nf);

// The next thing that changed since the last call, one of enum netfront_change, with its value in `value`, which
// may be NULL. Call it until it answers 0, whenever a wait answers NETFRONT_EVENT_CALLED.
int netfront_next_change(struct netfront *nf,
                         uint32_t *value);

// Writes the vif's Ethernet address, 6 bytes, to `mac`.
int netfront_mac(struct netfront *nf, uint8_t *mac);

// Bytes of payload in a frame, without the Ethernet header.
int netfront_mtu(struct netfront *nf);

// 1 if the cable is in and the backend is connected, else 0.
int netfront_carrier(struct netfront *nf);

// What the backend takes: bits of enum netfront_feature.
int netfront_features(struct netfront *nf);

// Copies a packet to `buffer`, of `size` bytes. Answers its length, or NETFRONT_ERROR_LENGTH if it does not fit.
int netfront_packet_copy(const struct netfront_packet *packet,
                         void *buffer,
                         size_t size);

// Writes the counter of this name to `value`. For any thread. NETFRONT_ERROR_INVALID if there is none of this name.
int netfront_stat(const struct netfront *nf,
                  const char *name,
                  uint64_t *value);

// Gives every counter to `callback` with `user`. For any thread. Answers how many there are.
int netfront_stats(const struct netfront *nf, netfront_count callback, void *user);

// Why the last call with this handle failed, in a sentence; for NULL why the last netfront_open() or netfront_close()
// of this thread did. Good until the next call of this. For the owner's thread.
const char *netfront_error_text(const struct netfront *nf);

// The name of an answer of a call, as in "NETFRONT_ERROR_FULL"; of 0 and more "NETFRONT_ERROR_NONE".
const char *netfront_error_name(int error);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* NETFRONT_H */
