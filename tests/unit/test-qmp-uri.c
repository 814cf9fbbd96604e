#include "sources/qmp-uri.h"

#include <errno.h>

#include "unit.h"
#include "util/cleanup.h"

static void a_socket_of_this_machine(void) {
        CLEANUP(qmp_uri_clear) QmpUri plain = { 0 }, full = { 0 };

        CHECK_INT(qmp_uri_parse("qmp:///run/a%20b.sock", &plain, NULL), 0);
        CHECK_TEXT(plain.path, "/run/a b.sock");
        CHECK(!plain.host && !plain.nbd_host && !plain.nbd_socket && !plain.agent);
        CHECK_INT(qmp_uri_parse("qmp:///q?nbd-socket=/n%26&agent=/ga.sock", &full, NULL), 0);
        CHECK_TEXT(full.nbd_socket, "/n&");
        CHECK_TEXT(full.agent, "/ga.sock");
}

static void another_machine(void) {
        CLEANUP(qmp_uri_clear) QmpUri uri = { 0 }, six = { 0 };

        CHECK_INT(qmp_uri_parse("qmp+tcp://host:4444?nbd-address=host:10809&scratch=/var/tmp", &uri, NULL), 0);
        CHECK(!uri.path);
        CHECK_TEXT(uri.host, "host");
        CHECK_INT(uri.port, 4444);
        CHECK_TEXT(uri.nbd_host, "host");
        CHECK_INT(uri.nbd_port, 10809);
        CHECK_TEXT(uri.scratch, "/var/tmp");
        CHECK_INT(qmp_uri_parse("qmp+tcp://[::1]:1/?nbd-address=[fe80::2]:2&scratch=/x", &six, NULL), 0);
        CHECK_TEXT(six.host, "::1");
        CHECK_TEXT(six.nbd_host, "fe80::2");
}

static void check_refused(const char *text, const char *words) {
        QmpUri uri = { 0 };
        Reason reason;

        CHECK_INT(qmp_uri_parse(text, &uri, &reason), -EINVAL);
        CHECK_SAYS(reason, words);
        CHECK_SAYS(reason, text);
}

static void what_cannot_be_is_refused_in_words(void) {
        check_refused("qmp://relative.sock", "is written as qmp:///path");
        check_refused("qmp:/run/q.sock", "is written as qmp:///path");
        check_refused("qmp:///", "is written as qmp:///path");
        check_refused("qmp+ssh://host:1", "is written as qmp:///path");
        check_refused("qmp:///q%0", "no escape");
        check_refused("qmp:///q?socket=/x", "no parameter \"socket\"");
        check_refused("qmp:///q?agent=x", "agent is no absolute path");
        check_refused("qmp:///q?nbd-address=host", "names no port");
        check_refused("qmp:///q?nbd-address=host:1&nbd-socket=/x", "cannot both be");
        check_refused("qmp:///q?scratch=/x", "--scratch-dir");
        check_refused("qmp+tcp://host", "names no port");
        check_refused("qmp+tcp://:1", "names no host");
        check_refused("qmp+tcp://host:1", "nbd-address and scratch must be said");
        check_refused("qmp+tcp://host:1?scratch=/x", "nbd-address must be said");
        check_refused("qmp+tcp://host:1?nbd-address=h:1", "scratch must be said");
}

int main(void) {
        CHECK(qmp_uri_claims("qmp:///x") && qmp_uri_claims("qmp+tcp://h:1") && !qmp_uri_claims("qemu:///system"));
        RUN(a_socket_of_this_machine);
        RUN(another_machine);
        RUN(what_cannot_be_is_refused_in_words);
        return unit_result();
}
