/*
 * Sends every frame back to whom it came from, straight from the vif: no kernel stack, no TAP. With an address it answers
 * ARP and ping for that, and nothing else.
 *
 *     echo [--vif N] [--sim SOCKET] [--packets N] [--address A.B.C.D]
 *
 * In a Xen guest, as root, when the vif is free (netfront take --vif 1):
 *
 *     cc -o echo echo.c $(pkg-config --cflags --libs netfront)
 *     ./echo --vif 1
 *
 * On the simulated Xen, with the backend that comes with the driver, which checks what comes back:
 *
 *     netback-sim serve --sim /tmp/xen --generate mix --rate 1000
 *     ./echo --sim /tmp/xen
 */
#define _POSIX_C_SOURCE 199309L
#include <netfront.h>

#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Packets of one turn. */
#define BATCH 64

/* Answers wait here until netfront_receive() has returned: in its callback the handle is busy. */
struct answers {
    /* Of this vif; the address is NULL if every frame is sent back. */
    unsigned char mac[6];
    const unsigned char *address;
    int count;
    struct {
        int len;
        struct netfront_offload offload;
        unsigned char frame[65535];
    } answer[BATCH];
};

static volatile sig_atomic_t stopped;

static void stop(int number)
{
    (void)number;
    stopped = 1;
}

static int is_arp_request(const unsigned char *frame, int len, const unsigned char *address)
{
    return len >= 42 && memcmp(frame + 12, "\x08\x06", 2) == 0 && memcmp(frame + 20, "\0\1", 2) == 0 &&
           memcmp(frame + 38, address, 4) == 0;
}

/* IPv4 without options, no fragment, an ICMP echo request. */
static int is_ping(const unsigned char *frame, int len, const unsigned char *address)
{
    return len >= 42 && memcmp(frame + 12, "\x08\x00\x45", 3) == 0 && (frame[20] & 0x3f) == 0 && frame[21] == 0 &&
           frame[23] == 1 && frame[34] == 8 && memcmp(frame + 30, address, 4) == 0;
}

/* Turns a question for our address into its answer. Answers 0 if it is none. */
static int make_answer(const struct answers *answers, unsigned char *frame, int len)
{
    unsigned sum;

    if (is_arp_request(frame, len, answers->address)) {
        frame[21] = 2;
        memmove(frame + 32, frame + 22, 10);
        memcpy(frame + 22, answers->mac, 6);
        memcpy(frame + 28, answers->address, 4);
    } else if (is_ping(frame, len, answers->address)) {
        /* The type becomes 0 instead of 8, and the sum of all words stays the same. */
        frame[34] = 0;
        sum = ((unsigned)frame[36] << 8 | frame[37]) + 0x0800;
        sum = (sum & 0xffff) + (sum >> 16);
        frame[36] = (unsigned char)(sum >> 8);
        frame[37] = (unsigned char)sum;
        memcpy(frame + 30, frame + 26, 4);
        memcpy(frame + 26, answers->address, 4);
    } else {
        return 0;
    }
    memcpy(frame, frame + 6, 6);
    memcpy(frame + 6, answers->mac, 6);
    return 1;
}

/* Called for every packet, which is gone when this returns: so it is copied. */
static void echo(void *user, const struct netfront_packet *packet)
{
    struct answers *answers = user;
    unsigned char *frame = answers->answer[answers->count].frame;
    unsigned char destination[6];
    int len = netfront_packet_copy(packet, frame, 65535);

    if (len < 14) {
        return;
    }
    if (answers->address == NULL) {
        memcpy(destination, frame, 6);
        memcpy(frame, frame + 6, 6);
        memcpy(frame + 6, destination, 6);
    } else if (!make_answer(answers, frame, len)) {
        return;
    }
    answers->answer[answers->count].len = len;
    /* A blank checksum stays blank, segments stay segments: the backend takes what it gave. */
    answers->answer[answers->count].offload = packet->offload;
    answers->count++;
}

/* Sends one answer; if the ring is full, waits until the backend has taken some. */
static int send_one(struct netfront *nf, const void *frame, int len, const struct netfront_offload *offload)
{
    int error;

    while ((error = netfront_send(nf, frame, (size_t)len, offload)) == NETFRONT_ERROR_FULL) {
        error = netfront_flush(nf);
        if (error >= 0) {
            error = netfront_wait(nf, 1000);
        }
        if (error < 0 || stopped) {
            return error;
        }
    }
    return error;
}

/* Receives what is there and sends it back. Answers how many packets there were, or an error. */
static int turn(struct netfront *nf, struct answers *answers)
{
    int packets, index, error;

    answers->count = 0;
    packets = netfront_receive(nf, BATCH, echo, answers);
    if (packets < 0) {
        return packets;
    }
    for (index = 0; index < answers->count; index++) {
        error = send_one(nf, answers->answer[index].frame, answers->answer[index].len,
                         &answers->answer[index].offload);
        if (error < 0) {
            return error;
        }
    }
    error = netfront_flush(nf);
    if (error < 0) {
        return error;
    }
    if (packets == 0) {
        /* Nothing is lost between a look at the ring and this sleep. A signal ends it. */
        error = netfront_wait(nf, 1000);
    }
    return error < 0 ? error : packets;
}

/* Whether what happened makes a new connection necessary. */
static int is_over(struct netfront *nf, int answer)
{
    int over = answer == NETFRONT_ERROR_BROKEN || answer == NETFRONT_ERROR_RESTORED;
    uint32_t value;
    int change;

    while ((change = netfront_next_change(nf, &value)) > 0) {
        printf("change %d, value %u\n", change, (unsigned)value);
        over |= change == NETFRONT_CHANGE_BACKEND_LEFT || change == NETFRONT_CHANGE_RESTORED ||
                change == NETFRONT_CHANGE_BROKEN;
    }
    return over;
}

/* Connects again, for as long as it takes: the backend may not be back yet. */
static void reconnect(struct netfront *nf)
{
    struct timespec pause = {0, 100000000};

    while (!stopped && netfront_reconnect(nf) < 0) {
        fprintf(stderr, "not connected yet: %s\n", netfront_error_text(nf));
        nanosleep(&pause, NULL);
    }
}

static int run(struct netfront *nf, long most, const unsigned char *address)
{
    struct answers *answers = calloc(1, sizeof *answers);
    unsigned char *mac;
    long packets = 0;
    int answer = 0;

    if (answers == NULL || netfront_mac(nf, answers->mac) < 0) {
        free(answers);
        return 1;
    }
    answers->address = address;
    mac = answers->mac;
    printf("echo at %02x:%02x:%02x:%02x:%02x:%02x, MTU %d, with netfront %s\n", mac[0], mac[1], mac[2],
           mac[3], mac[4], mac[5], netfront_mtu(nf), netfront_version());
    fflush(stdout);
    while (!stopped && packets < most) {
        answer = turn(nf, answers);
        if (answer > 0) {
            packets += answer;
        }
        if (is_over(nf, answer)) {
            reconnect(nf);
            /* The new backend may have another one for us. */
            netfront_mac(nf, answers->mac);
        } else if (answer < 0) {
            fprintf(stderr, "%s: %s\n", netfront_error_name(answer), netfront_error_text(nf));
            break;
        }
        answer = 0;
    }
    /* Sent means answered: until then the backend may not have looked. */
    while (answer == 0 && !stopped && netfront_unanswered(nf) > 0) {
        if (netfront_wait(nf, 1000) < 0) {
            break;
        }
    }
    printf("%ld packets\n", packets);
    free(answers);
    return answer < 0;
}

int main(int count, char **arguments)
{
    struct netfront_options options = {0};
    struct netfront *nf;
    struct sigaction action;
    unsigned char bytes[4], *address = NULL;
    long most = 0x7fffffff;
    int index, failed;

    for (index = 1; index + 1 < count; index += 2) {
        if (strcmp(arguments[index], "--vif") == 0) {
            options.vif = (uint32_t)strtoul(arguments[index + 1], NULL, 10);
        } else if (strcmp(arguments[index], "--sim") == 0) {
            options.sim = arguments[index + 1];
        } else if (strcmp(arguments[index], "--packets") == 0) {
            most = strtol(arguments[index + 1], NULL, 10);
        } else if (strcmp(arguments[index], "--address") == 0 && inet_pton(AF_INET, arguments[index + 1], bytes) == 1) {
            address = bytes;
        } else {
            break;
        }
    }
    if (index < count) {
        fprintf(stderr, "usage: echo [--vif N] [--sim SOCKET] [--packets N] [--address A.B.C.D]\n");
        return 2;
    }
    memset(&action, 0, sizeof action);
    action.sa_handler = stop;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    failed = netfront_open(&options, &nf);
    if (failed < 0) {
        fprintf(stderr, "%s: %s\n", netfront_error_name(failed), netfront_error_text(NULL));
        return 1;
    }
    failed = run(nf, most, address);
    /* Says goodbye: the backend lets go of the pages. */
    return netfront_close(nf) < 0 || failed;
}
