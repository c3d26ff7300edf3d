/*
 * What a C program may do wrong: every call says so, and none does harm. Run by tests/programs.rs with the
 * socket of a simulated Xen whose backend sends packets. Ends with 0 if all is as the header says.
 */
#define _POSIX_C_SOURCE 200112L
#include <netfront.h>

#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

static int failures;

#define CHECK(condition)                                                   \
    do {                                                                   \
        if (!(condition)) {                                                \
            fprintf(stderr, "line %d: not so: %s\n", __LINE__, #condition); \
            failures++;                                                    \
        }                                                                  \
    } while (0)

static struct netfront *shared;

static void nothing(void *user, const struct netfront_packet *packet)
{
    (void)user;
    (void)packet;
}

/* The handle is in use: everything is refused, also its end. */
static void greedy(void *user, const struct netfront_packet *packet)
{
    unsigned char small[13];
    int *calls = user;

    CHECK(netfront_packet_copy(packet, small, sizeof small) == NETFRONT_ERROR_LENGTH);
    CHECK(netfront_packet_copy(packet, NULL, 65535) == NETFRONT_ERROR_INVALID);
    CHECK(netfront_flush(shared) == NETFRONT_ERROR_BUSY);
    CHECK(netfront_receive(shared, 1, nothing, NULL) == NETFRONT_ERROR_BUSY);
    CHECK(netfront_reconnect(shared) == NETFRONT_ERROR_BUSY);
    CHECK(netfront_close(shared) == NETFRONT_ERROR_BUSY);
    CHECK(strstr(netfront_error_text(shared), "callback") != NULL);
    (*calls)++;
}

static void one_counter(void *user, const char *name, uint64_t value, const char *meaning)
{
    int *seen = user;
    uint64_t again = 0;

    CHECK(name[0] != 0 && meaning[0] != 0);
    CHECK(netfront_stat(shared, name, &again) == 0 && again >= value);
    (*seen)++;
}

static void *another_thread(void *user)
{
    int seen = 0;

    (void)user;
    CHECK(netfront_flush(shared) == NETFRONT_ERROR_THREAD);
    CHECK(netfront_wait(shared, 0) == NETFRONT_ERROR_THREAD);
    CHECK(netfront_close(shared) == NETFRONT_ERROR_THREAD);
    CHECK(netfront_stats(shared, one_counter, &seen) == seen && seen > 30);
    CHECK(netfront_wake(shared) == 0);
    return NULL;
}

static void null_is_refused(void)
{
    unsigned char mac[6];
    uint64_t value;
    uint32_t number;

    CHECK(netfront_open(NULL, NULL) == NETFRONT_ERROR_INVALID);
    CHECK(netfront_close(NULL) == 0);
    CHECK(netfront_reconnect(NULL) == NETFRONT_ERROR_INVALID);
    CHECK(netfront_receive(NULL, 1, nothing, NULL) == NETFRONT_ERROR_INVALID);
    CHECK(netfront_send(NULL, mac, 6, NULL) == NETFRONT_ERROR_INVALID);
    CHECK(netfront_flush(NULL) == NETFRONT_ERROR_INVALID);
    CHECK(netfront_unanswered(NULL) == NETFRONT_ERROR_INVALID);
    CHECK(netfront_wait(NULL, 0) == NETFRONT_ERROR_INVALID);
    CHECK(netfront_wake(NULL) == NETFRONT_ERROR_INVALID);
    CHECK(netfront_fd(NULL) == NETFRONT_ERROR_INVALID);
    CHECK(netfront_arm(NULL) == NETFRONT_ERROR_INVALID);
    CHECK(netfront_woken(NULL) == NETFRONT_ERROR_INVALID);
    CHECK(netfront_next_change(NULL, &number) == NETFRONT_ERROR_INVALID);
    CHECK(netfront_mac(NULL, mac) == NETFRONT_ERROR_INVALID);
    CHECK(netfront_mtu(NULL) == NETFRONT_ERROR_INVALID);
    CHECK(netfront_carrier(NULL) == NETFRONT_ERROR_INVALID);
    CHECK(netfront_features(NULL) == NETFRONT_ERROR_INVALID);
    CHECK(netfront_packet_copy(NULL, mac, 6) == NETFRONT_ERROR_INVALID);
    CHECK(netfront_stat(NULL, "rx_packets", &value) == NETFRONT_ERROR_INVALID);
    CHECK(netfront_stats(NULL, one_counter, NULL) == NETFRONT_ERROR_INVALID);
    CHECK(strcmp(netfront_error_name(NETFRONT_ERROR_FULL), "NETFRONT_ERROR_FULL") == 0);
    CHECK(strcmp(netfront_error_name(-99), "unknown") == 0);
}

static void options_are_judged(const char *socket)
{
    struct netfront_options options = {0};
    struct netfront *nf = (struct netfront *)&options;

    options.sim = "/nonexistent/xen";
    CHECK(netfront_open(&options, &nf) < 0 && nf == NULL);
    CHECK(strstr(netfront_error_text(NULL), "/nonexistent/xen") != NULL);
    options.sim = socket;
    options.policy = 9;
    CHECK(netfront_open(&options, &nf) == NETFRONT_ERROR_INVALID);
    CHECK(strstr(netfront_error_text(NULL), "policy") != NULL);
    options.policy = NETFRONT_POLICY_POOL;
    options.reserved[3] = 1;
    CHECK(netfront_open(&options, &nf) == NETFRONT_ERROR_INVALID);
    options.reserved[3] = 0;
    options.domid = 65536;
    CHECK(netfront_open(&options, &nf) == NETFRONT_ERROR_INVALID);
    options.domid = 0;
    options.vif = 7;
    options.deadline_ms = 100;
    CHECK(netfront_open(&options, &nf) == NETFRONT_ERROR_NO_VIF && nf == NULL);
    CHECK(strstr(netfront_error_text(NULL), "vif 7") != NULL);
}

static void packets_to_send_are_judged(void)
{
    static unsigned char frame[70000];
    struct netfront_offload offload = {0};
    struct netfront_piece pieces[2] = {{frame, 14}, {NULL, 0}};

    CHECK(netfront_send(shared, frame, 0, NULL) == NETFRONT_ERROR_LENGTH);
    CHECK(netfront_send(shared, frame, 65536, NULL) == NETFRONT_ERROR_LENGTH);
    CHECK(netfront_send(shared, frame, (size_t)-1, NULL) == NETFRONT_ERROR_LENGTH);
    CHECK(netfront_send(shared, NULL, 60, NULL) == NETFRONT_ERROR_LENGTH);
    CHECK(netfront_sendv(shared, NULL, 1, NULL) == NETFRONT_ERROR_INVALID);
    CHECK(netfront_sendv(shared, pieces, NETFRONT_PIECES_MAX + 1, NULL) == NETFRONT_ERROR_INVALID);
    CHECK(netfront_sendv(shared, pieces, 2, NULL) == 0);
    offload.checksum = 3;
    CHECK(netfront_send(shared, frame, 60, &offload) == NETFRONT_ERROR_INVALID);
    offload.checksum = NETFRONT_CHECKSUM_BLANK;
    offload.gso = NETFRONT_GSO_TCPV4;
    CHECK(netfront_send(shared, frame, 60, &offload) == NETFRONT_ERROR_INVALID);
    CHECK(strstr(netfront_error_text(shared), "gso_size") != NULL);
    CHECK(netfront_flush(shared) == 0);
}

/* A poll of one's own: one descriptor for packets and for calls of other threads. */
static void a_poll_of_ones_own_wakes(void)
{
    struct pollfd ready = {0};
    int packets = 0, turns, calls = 0;

    ready.fd = netfront_fd(shared);
    ready.events = POLLIN;
    CHECK(ready.fd >= 0);
    for (turns = 0; turns < 1000 && packets < 20; turns++) {
        int found = netfront_receive(shared, 64, nothing, NULL);
        CHECK(found >= 0 && netfront_flush(shared) == 0);
        packets += found;
        if (netfront_arm(shared) == 0) {
            CHECK(poll(&ready, 1, 5000) == 1);
            CHECK(netfront_woken(shared) > 0);
        }
    }
    CHECK(packets >= 20);
    for (turns = 0; turns < 1000 && calls == 0; turns++) {
        CHECK(netfront_wake(shared) == 0);
        netfront_receive(shared, 64, nothing, NULL);
        netfront_flush(shared);
        if (netfront_arm(shared) == 0) {
            CHECK(poll(&ready, 1, 5000) == 1);
            calls += netfront_woken(shared) == NETFRONT_EVENT_CALLED;
        }
    }
    CHECK(calls == 1);
}

int main(int count, char **arguments)
{
    struct netfront_options options = {0};
    pthread_t thread;
    uint64_t value = 0;
    int calls = 0, turns;

    if (count != 2) {
        return 2;
    }
    null_is_refused();
    options_are_judged(arguments[1]);
    options.sim = arguments[1];
    CHECK(netfront_open(&options, &shared) == 0);
    if (shared == NULL) {
        fprintf(stderr, "%s\n", netfront_error_text(NULL));
        return 1;
    }
    CHECK(netfront_mac(shared, NULL) == NETFRONT_ERROR_INVALID);
    CHECK(netfront_mtu(shared) == 1500 && netfront_carrier(shared) == 1);
    CHECK(netfront_features(shared) & NETFRONT_FEATURE_SG);
    CHECK(netfront_receive(shared, 1, NULL, NULL) == NETFRONT_ERROR_INVALID);
    CHECK(netfront_next_change(shared, NULL) == NETFRONT_CHANGE_NONE);
    packets_to_send_are_judged();
    for (turns = 0; turns < 1000 && calls == 0; turns++) {
        CHECK(netfront_receive(shared, 64, greedy, &calls) >= 0);
        CHECK(netfront_flush(shared) == 0);
        CHECK(netfront_wait(shared, 1000) >= 0);
    }
    CHECK(calls > 0);
    a_poll_of_ones_own_wakes();
    CHECK(pthread_create(&thread, NULL, another_thread, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(netfront_stat(shared, "rx_packets", &value) == 0 && value > 0);
    CHECK(netfront_stat(shared, "no such counter", &value) == NETFRONT_ERROR_INVALID);
    CHECK(netfront_stat(shared, NULL, &value) == NETFRONT_ERROR_INVALID);
    /* The backend is there still: closed and connected anew, and counters go on. */
    CHECK(netfront_reconnect(shared) == 0);
    CHECK(netfront_stat(shared, "rx_packets", &value) == 0 && value > 0);
    a_poll_of_ones_own_wakes();
    CHECK(netfront_close(shared) == 0);
    return failures > 0;
}
