// SPDX-License-Identifier: MIT OR Apache-2.0
//
// What becomes of a /dev/xen/evtchn handle when its domain is saved and restored, or migrated.
//
//	cc -Wall -static -o evtchn-restore evtchn-restore.c
//	./evtchn-restore close|unbind|notify|rebind|reopen	in the domU, as root
//
// It binds two ports and waits. Save and restore the domain, then press Enter. Then the old handle is closed, its
// port is unbound, notified, it is bound again, or a new handle is bound before the old one is closed.
// A kernel without the fix may kill the process, or leave its interrupts in disorder: use a domain that can be lost.

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define DOMID_SELF 0x7FF0u
#define BIND_INTERDOMAIN _IOC(_IOC_NONE, 'E', 1, 8)
#define BIND_UNBOUND_PORT _IOC(_IOC_NONE, 'E', 2, 4)
#define UNBIND _IOC(_IOC_NONE, 'E', 3, 4)
#define NOTIFY _IOC(_IOC_NONE, 'E', 4, 4)

static int say(const char *what, int result)
{
	if (result < 0)
		printf("%s: %s\n", what, strerror(errno));
	else
		printf("%s: %d\n", what, result);
	return result;
}

static int on_port(int handle, unsigned long request, const char *what, unsigned int port)
{
	return say(what, ioctl(handle, request, &port));
}

static int bind_unbound(int handle)
{
	unsigned int remote = DOMID_SELF;

	return say("bind an unbound port", ioctl(handle, BIND_UNBOUND_PORT, &remote));
}

// One event through a channel from this domain to itself, both ends of it at this handle.
static void one_event(int handle)
{
	int port = bind_unbound(handle);
	unsigned int peer[2] = { DOMID_SELF, port };
	uint32_t seen = 0;
	int other = say("bind its other end", ioctl(handle, BIND_INTERDOMAIN, peer));
	struct pollfd one = { .fd = handle, .events = POLLIN };

	on_port(handle, NOTIFY, "notify through it", other);
	// Binding itself raises an event at each end: take those of one second.
	for (int i = 0; i < 8 && poll(&one, 1, 1000) > 0; i++) {
		if (say("read an event, bytes", read(handle, &seen, sizeof(seen))) < 0)
			continue;
		printf("event of port %u\n", seen);
		say("unmask it, bytes", write(handle, &seen, sizeof(seen)));
		if (seen == (uint32_t)port) {
			puts("an event arrived");
			return;
		}
	}
	puts("NO event arrived");
}

// Waits for Enter; says whether the handle told of the restore by itself.
static void wait_for_restore(int handle)
{
	struct pollfd both[2] = { { .fd = handle, .events = POLLIN }, { .fd = 0, .events = POLLIN } };
	uint32_t ports[64];
	char line[16];

	while (poll(both, 2, -1) >= 0) {
		if (both[0].revents) {
			printf("poll: %#x\n", both[0].revents);
			say("read", read(handle, ports, sizeof(ports)));
		}
		if (both[1].revents) {
			if (read(0, line, sizeof(line)) < 0)
				perror("stdin");
			return;
		}
	}
}

int main(int argc, char **argv)
{
	const char *how = argc == 2 ? argv[1] : "";
	int handle = open("/dev/xen/evtchn", O_RDWR | O_NONBLOCK);

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (handle < 0 || !strstr("close unbind notify rebind reopen", how) || !*how) {
		fprintf(stderr, "usage: %s close|unbind|notify|rebind|reopen (/dev/xen/evtchn: %s)\n", argv[0], strerror(errno));
		return 2;
	}
	int port = bind_unbound(handle);

	bind_unbound(handle);
	puts("save and restore this domain, then press Enter");
	wait_for_restore(handle);

	if (!strcmp(how, "unbind"))
		on_port(handle, UNBIND, "unbind the old port", port);
	if (!strcmp(how, "notify"))
		on_port(handle, NOTIFY, "notify the old port", port);
	if (!strcmp(how, "rebind"))
		one_event(handle);
	if (!strcmp(how, "reopen")) {
		int fresh = open("/dev/xen/evtchn", O_RDWR | O_NONBLOCK);

		bind_unbound(fresh);
		bind_unbound(fresh);
		say("close the old handle", close(handle));
		one_event(fresh);
		handle = fresh;
	}
	say("close the handle", close(handle));
	puts("done");
	return 0;
}
