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

static void what_is_no_uri_is_refused(void) {
        LibvirtUri parsed;
        Reason reason = REASON_INIT;

        CHECK_INT(libvirt_uri_parse("qemu:system", &parsed, &reason), -EINVAL);
        CHECK_SAYS(reason, "qemu:///system");
        CHECK_INT(libvirt_uri_parse("qemu:///system?domain=", &parsed, &reason), -EINVAL);
        CHECK_SAYS(reason, "names no domain");
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
        RUN(what_is_no_uri_is_refused);
        RUN(only_libvirt_is_claimed);
        return unit_result();
}
