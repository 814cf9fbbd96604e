#include "sources/nbd-uri.h"

#include <errno.h>

#include "unit.h"
#include "util/cleanup.h"

static void everything_is_taken_apart_and_put_together(void) {
        CLEANUP(nbd_uri_clear) NbdUri uri = { 0 };
        CLEANUP(freep) char *text = NULL;

        CHECK_INT(nbd_uri_parse("nbds://me@[::1]:99/a%20b?tls-psk-file=/k&bitmap=b&checkpoint=x:y&image=I&timeout=7", &uri,
                                NULL), 0);
        CHECK(uri.tls && uri.verify && uri.port == 99 && uri.common.timeout_s == 7 && !uri.socket);
        CHECK_TEXT(uri.host, "::1");
        CHECK_TEXT(uri.user, "me");
        CHECK_TEXT(uri.export_name, "a b");
        CHECK_TEXT(uri.bitmap_context, "qemu:dirty-bitmap:b");
        CHECK_TEXT(uri.checkpoint_context, "x:y");
        CHECK_TEXT(uri.shown, "[::1]:99/a b");
        CHECK_INT(nbd_uri_format(&uri, &text), 0);
        CHECK_TEXT(text, "nbds://me@[::1]:99/a%20b?tls-psk-file=/k&bitmap=b&checkpoint=x:y&image=I&timeout=7");
}

static void nothing_but_a_host_will_do(void) {
        CLEANUP(nbd_uri_clear) NbdUri uri = { 0 };

        CHECK_INT(nbd_uri_parse("nbd://host", &uri, NULL), 0);
        CHECK(uri.port == 10809 && !uri.tls && !uri.bitmap_context && uri.common.timeout_s == 0);
        CHECK_TEXT(uri.export_name, "");
}

static void relative_paths_become_absolute(void) {
        CLEANUP(nbd_uri_clear) NbdUri uri = { 0 };

        CHECK_INT(chdir("/usr"), 0);
        CHECK_INT(nbd_uri_parse("nbds+unix:///e?socket=s&tls-verify-peer=false&tls-certificates=c", &uri, NULL), 0);
        CHECK_TEXT(uri.socket, "/usr/s");
        CHECK_TEXT(uri.certificates, "/usr/c");
        CHECK(uri.tls && !uri.verify);
}

static void what_cannot_be_is_refused_in_words(void) {
        static const char *const uris[][2] = {
                { "nbd://u:SECRET@h/x", "no passwords" },
                { "nbds://u:SECRET@h/x", "no passwords" },
                { "nbds://u@h/x", "tls-psk-file" },
                { "nbd:///x", "names no host" },
                { "nbd+unix:///x", "nbd+unix:///EXPORT?socket=PATH" },
                { "nbd+unix://h/x?socket=/s", "nbd+unix:///EXPORT?socket=PATH" },
                { "nbd://h/x?socket=/s", "a host and a socket" },
                { "nbds+unix:///x?socket=/s", "cannot be verified" },
                { "nbd://h/x?tls-certificates=/c", "no TLS" },
                { "nbds://h/x?tls-verify-peer=no", "tls-verify-peer is" },
                { "nbds://h/x?tls-verify-peer=false&tls-psk-file=/k", "tls-verify-peer is" },
                { "nbd://h/x?bitmap=a&bitmap=b", "twice" },
                { "nbd://h/x?bitmap=", "says nothing" },
                { "nbd://h/x?foo=1", "\"foo\" is no parameter" },
                { "nbd://h/x?timeout=0", "from 1 to 3600" },
                { "nbd://h/x?bitmap=%zz", "no escape" },
                { "nbd://h/%zz", "export cannot be" },
                { "nbd://h/x#y", "%23" },
                { "nbd://h:0x/x", "h:0x" },
                { "nbd+vsock://1/x", "nbd+unix://" },
        };

        for (size_t i = 0; i < sizeof uris / sizeof *uris; i++) {
                CLEANUP(nbd_uri_clear) NbdUri uri = { 0 };
                Reason reason = REASON_INIT;

                CHECK_INT(nbd_uri_parse(uris[i][0], &uri, &reason), -EINVAL);
                CHECK_SAYS(reason, uris[i][1]);
                CHECK(!strstr(reason.text, "SECRET"));
        }
}

int main(void) {
        RUN(everything_is_taken_apart_and_put_together);
        RUN(nothing_but_a_host_will_do);
        RUN(relative_paths_become_absolute);
        RUN(what_cannot_be_is_refused_in_words);
        return unit_result();
}
