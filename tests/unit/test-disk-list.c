/* The words DISK=URI, as far as no server is needed for them. */
#include "sources/disk-list.h"

#include <errno.h>

#include "unit.h"

static int open_words(const char *words, const Strings *exclude, Source **ret, Reason *reterr) {
        SourceOwner owner = { .source = words, .exclude = exclude, .vm = "vm", .repository = "r" };

        return source_open(&owner, ret, reterr);
}

static void words_are_claimed_and_uris_are_not(void) {
        CHECK(disk_list_source_ops.claims("vda=https://h/images/t"));
        CHECK(disk_list_source_ops.claims("a b=c") == false);
        CHECK(disk_list_source_ops.claims("qemu:///system?domain=x") == false);
        CHECK(disk_list_source_ops.claims("https://h/images/t?cafile=x") == false);
        CHECK(disk_list_source_ops.claims("=https://h/images/t") == false);
        CHECK(disk_list_source_ops.claims("") == false);
}

static void wrong_words_are_refused_and_tell_no_secret(void) {
        static const char *const words[][2] = {
                { "vda=https://h/images/SECRET vda=https://h/images/SECRET", "vda is there twice" },
                { "vda=https://h/images/SECRET https://h/images/SECRET", "DISK=URI" },
                { "vda=https://h/images/SECRET  vdb=https://h/images/SECRET", "DISK=URI" },
                { "vda=", "vda: \"\" is no URI" },
                { "vda=ftp://u:SECRET@h/x", "ftp://u:***@h/x" },
                { "vda=https://h/images/SECRET vdb=https://h/images/SECRET?x=y", "vdb: https://h/images/***?x=y: \"x\"" },
        };

        for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
                Source *source;
                Reason reason = REASON_INIT;

                CHECK_INT(open_words(words[i][0], NULL, &source, &reason), -EINVAL);
                CHECK_SAYS(reason, words[i][1]);
                CHECK(!strstr(reason.text, "SECRET"));
        }
}

static void relative_paths_are_settled_also_of_disks_that_are_left_out(void) {
        CLEANUP(source_freep) Source *source = NULL;
        CLEANUP(freep) char *settled = NULL;
        char *vdb = "vdb";
        Strings exclude = { &vdb, 1 };

        CHECK_INT(chdir("/usr"), 0);
        CHECK_INT(open_words("a=https://h/images/a?cafile=x vdb=https://h/images/b c=https://h/images/c?cafile=y", &exclude,
                             &source, NULL), 0);
        CHECK_INT(source_settle(source, &settled, NULL), 0);
        CHECK_TEXT(settled, "a=https://h/images/a?cafile=/usr/x vdb=https://h/images/b c=https://h/images/c?cafile=/usr/y");
}

static void each_list_is_another_vm_unless_one_is_known(void) {
        CLEANUP(source_freep) Source *source = NULL;
        CLEANUP(freep) char *one = NULL, *other = NULL, *known = NULL;

        CHECK_INT(open_words("vda=https://h/images/a", NULL, &source, NULL), 0);
        CHECK_INT(source_identify(source, &one, NULL), 0);
        CHECK_INT(source_identify(source, &other, NULL), 0);
        CHECK(strcmp(one, other) != 0);
        source->owner.former_uuid = one;
        CHECK_INT(source_identify(source, &known, NULL), 0);
        CHECK_TEXT(known, one);
}

int main(void) {
        RUN(words_are_claimed_and_uris_are_not);
        RUN(wrong_words_are_refused_and_tell_no_secret);
        RUN(relative_paths_are_settled_also_of_disks_that_are_left_out);
        RUN(each_list_is_another_vm_unless_one_is_known);
        return unit_result();
}
