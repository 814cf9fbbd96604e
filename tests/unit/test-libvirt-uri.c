#include "sources/libvirt-uri.h"

#include <errno.h>

#include "unit.h"
#include "util/cleanup.h"

static void check(const char *text, const char *uri, const char *domain, bool local) {
        CLEANUP(libvirt_uri_clear) LibvirtUri parsed = { 0 };

        CHECK_INT(libvirt_uri_parse(text, &parsed, NULL), 0);
        CHECK_TEXT(parsed.uri, uri);
        CHECK_INT(parsed.local, local);
        if (domain)
                CHECK_TEXT(parsed.domain, domain);
        else
                CHECK(!parsed.domain);
}

static void our_parameter_is_taken_out_and_others_stay(void) {
        check("qemu:///system", "qemu:///system", NULL, true);
        check("qemu:///system?domain=vm", "qemu:///system", "vm", true);
        check("qemu:///system?domain=a%20%26b&socket=/x", "qemu:///system?socket=/x", "a &b", true);
        check("qemu:///system?socket=/x&domain=vm&mode=legacy", "qemu:///system?socket=/x&mode=legacy", "vm", true);
        check("qemu:///system?socket=/x", "qemu:///system?socket=/x", NULL, true);
        check("qemu+ssh://root@host/system?domain=vm", "qemu+ssh://root@host/system", "vm", false);
        check("qemu+unix:///session?mydomain=x", "qemu+unix:///session?mydomain=x", NULL, true);
}

static void check_nbd(const char *text, const char *host, unsigned port) {
        CLEANUP(libvirt_uri_clear) LibvirtUri parsed = { 0 };

        CHECK_INT(libvirt_uri_parse(text, &parsed, NULL), 0);
        CHECK(!parsed.local);
        CHECK_TEXT(parsed.nbd_host, host);
        CHECK_INT(parsed.nbd_port, port);
}

static void another_host_is_read_from_where_its_uri_says(void) {
        check_nbd("qemu+ssh://root@host/system", "host", 0);
        check_nbd("qemu+tls://host:16514/system", "host", 0);
        check_nbd("qemu+tcp://[::1]:99/system", "::1", 0);
        check_nbd("qemu+ssh://host/system?nbd-address=10.0.0.7", "10.0.0.7", 0);
        check_nbd("qemu+ssh://host/system?nbd-address=10.0.0.7:10900", "10.0.0.7", 10900);
        check_nbd("qemu+ssh://host/system?nbd-address=fe80::1", "fe80::1", 0);
        check_nbd("qemu+ssh://host/system?nbd-address=[fe80::1]:65535", "fe80::1", 65535);
        check_nbd("qemu+unix:///session?socket=/x&nbd-address=127.0.0.1", "127.0.0.1", 0);
}

static void encryption_is_asked_for(void) {
        CLEANUP(libvirt_uri_clear) LibvirtUri plain = { 0 }, asked = { 0 };

        CHECK_INT(libvirt_uri_parse("qemu+ssh://h/system?nbd-certificates=%2Fetc%2Fpki&nbd-tls=yes&mode=legacy", &asked,
                                    NULL), 0);
        CHECK_INT(asked.nbd_tls, NBD_TLS_YES);
        CHECK_TEXT(asked.nbd_certificates, "/etc/pki");
        CHECK_TEXT(asked.uri, "qemu+ssh://h/system?mode=legacy");
        CHECK_INT(libvirt_uri_parse("qemu+ssh://h/system", &plain, NULL), 0);
        CHECK_INT(plain.nbd_tls, NBD_TLS_AUTO);
        CHECK(!plain.nbd_certificates);
}

static void what_is_no_uri_is_refused(void) {
        LibvirtUri parsed;
        Reason reason = REASON_INIT;

        CHECK_INT(libvirt_uri_parse("qemu:system", &parsed, &reason), -EINVAL);
        CHECK_SAYS(reason, "qemu:///system");
        CHECK_INT(libvirt_uri_parse("qemu:///system?domain=", &parsed, &reason), -EINVAL);
        CHECK_SAYS(reason, "names no domain");
        CHECK_INT(libvirt_uri_parse("qemu+ssh://h/system?nbd-address=h:0", &parsed, &reason), -EINVAL);
        CHECK_SAYS(reason, "no port that could be");
        CHECK_INT(libvirt_uri_parse("qemu+ssh://h/system?nbd-address=h:1x", &parsed, &reason), -EINVAL);
        CHECK_INT(libvirt_uri_parse("qemu+ssh://h/system?nbd-address=:10809", &parsed, &reason), -EINVAL);
        CHECK_SAYS(reason, "names no host");
        CHECK_INT(libvirt_uri_parse("qemu+ssh://h/system?nbd-address=[::1", &parsed, &reason), -EINVAL);
        CHECK_INT(libvirt_uri_parse("qemu+ssh://h/system?nbd-tls=maybe", &parsed, &reason), -EINVAL);
        CHECK_SAYS(reason, "yes, no or auto");
        CHECK_INT(libvirt_uri_parse("qemu+ssh://h/system?nbd-certificates=", &parsed, &reason), -EINVAL);
        CHECK_INT(libvirt_uri_parse("qemu+ssh://h/system?nbd-certificates=pki", &parsed, &reason), -EINVAL);
        CHECK_SAYS(reason, "absolute");
        CHECK_INT(libvirt_uri_parse("qemu:///system?domain=%zz", &parsed, &reason), -EINVAL);
        CHECK_SAYS(reason, "no escape");
}

static void only_libvirt_is_claimed(void) {
        CHECK(libvirt_uri_claims("qemu:///system"));
        CHECK(libvirt_uri_claims("qemu+ssh://h/system"));
        CHECK(!libvirt_uri_claims("qemux:///system"));
        CHECK(!libvirt_uri_claims("qmp:///path"));
        CHECK(!libvirt_uri_claims("vda=nbd://h"));
}

int main(void) {
        RUN(our_parameter_is_taken_out_and_others_stay);
        RUN(another_host_is_read_from_where_its_uri_says);
        RUN(encryption_is_asked_for);
        RUN(what_is_no_uri_is_refused);
        RUN(only_libvirt_is_claimed);
        return unit_result();
}
