#include "sources/job-xml.h"

#include <errno.h>

#include "unit.h"

static const JobDisk disks[] = {
        { .name = "vda", .backup = true, .incremental = true, .checkpoint = true, .scratch = "/s/a&b" },
        { .name = "vdb", .backup = true, .scratch = "/s/<b>" },
        { .name = "sda" },
};

static const JobServer local = { .socket = "/run/s" };

static void every_disk_of_a_job_is_named(void) {
        CLEANUP(freep) char *text = NULL;

        CHECK_INT(job_xml_backup(disks, 3, "base", &local, &text, NULL), 0);
        CHECK(strstr(text, "<domainbackup mode=\"pull\">"));
        CHECK(strstr(text, "<server transport=\"unix\" socket=\"/run/s\"/>"));
        CHECK(strstr(text, "<disk name=\"vda\" backup=\"yes\" type=\"file\" backupmode=\"incremental\" incremental=\"base\" "
                           "exportbitmap=\"vda\" exportname=\"vda\">"));
        CHECK(strstr(text, "<scratch file=\"/s/a&amp;b\"/>"));
        CHECK(strstr(text, "<disk name=\"vdb\" backup=\"yes\" type=\"file\" backupmode=\"full\" exportname=\"vdb\">"));
        CHECK(strstr(text, "<scratch file=\"/s/&lt;b&gt;\"/>"));
        CHECK(strstr(text, "<disk name=\"sda\" backup=\"no\"/>"));
}

static void checkpoint_marks_only_what_can_carry_it(void) {
        CLEANUP(freep) char *text = NULL;
        CLEANUP(strings_free) Strings marked = { 0 };

        CHECK_INT(job_xml_checkpoint(disks, 3, "c1", &text, NULL), 0);
        CHECK(strstr(text, "<name>c1</name>"));
        CHECK(strstr(text, "<disk name=\"vda\" checkpoint=\"bitmap\"/>"));
        CHECK(strstr(text, "<disk name=\"vdb\" checkpoint=\"no\"/>"));
        CHECK(strstr(text, "<disk name=\"sda\" checkpoint=\"no\"/>"));
        CHECK_INT(job_xml_checkpoint_disks(text, &marked, NULL), 0);
        CHECK_INT(marked.count, 1);
        CHECK_TEXT(marked.items[0], "vda");
}

static void text_that_is_not_utf_8_is_refused(void) {
        const JobDisk bad = { .name = "vda", .backup = true, .scratch = "/s/\xff" };
        char *text;
        Reason reason = REASON_INIT;

        CHECK_INT(job_xml_backup(&bad, 1, NULL, &local, &text, &reason), -EINVAL);
        CHECK_SAYS(reason, "cannot write the XML");
}

static void redefinition_has_no_parent_and_only_named_disks(void) {
        const char *definition = "<domaincheckpoint><name>c1</name><parent><name>c0</name></parent>"
                                 "<creationTime>5</creationTime><disks><disk name='vda' checkpoint='bitmap' bitmap='c1'/>"
                                 "<disk name='vdb' checkpoint='bitmap' bitmap='c1'/></disks></domaincheckpoint>";
        char *names[] = { (char *) "vdb" };
        CLEANUP(freep) char *text = NULL;
        Reason reason = REASON_INIT;

        CHECK_INT(job_xml_redefine(definition, "c1", &(Strings) { names, 1 }, &text, &reason), 0);
        CHECK(!strstr(text, "parent") && !strstr(text, "vda"));
        CHECK(strstr(text, "<disk name=\"vdb\" checkpoint=\"bitmap\" bitmap=\"c1\"/>"));
        CHECK(strstr(text, "<creationTime>5</creationTime>"));
        free(STEAL_PTR(text));
        CHECK_INT(job_xml_redefine(definition, "c2", &(Strings) { names, 1 }, &text, &reason), -EBADMSG);
        CHECK_SAYS(reason, "not that of c2");
}

static void job_on_another_host_is_read_by_tcp(void) {
        CLEANUP(freep) char *plain = NULL, *tls = NULL;

        CHECK_INT(job_xml_backup(disks, 3, "base", &(JobServer) { .host = "10.0.0.7", .port = 10810 }, &plain, NULL), 0);
        CHECK(strstr(plain, "<server transport=\"tcp\" name=\"10.0.0.7\" port=\"10810\"/>"));
        CHECK_INT(job_xml_backup(disks, 3, "base", &(JobServer) { .host = "::1", .port = 1, .tls = true }, &tls, NULL), 0);
        CHECK(strstr(tls, "<server transport=\"tcp\" name=\"::1\" port=\"1\" tls=\"yes\"/>"));
}

static void paths_of_a_job_are_found(void) {
        CLEANUP(strings_free) Strings paths = { 0 }, none = { 0 };
        Reason reason = REASON_INIT;

        CHECK_INT(job_xml_paths("<domainbackup mode='pull'><server transport='unix' socket='/x/y'/><disks>"
                                "<disk name='vda' type='file'><scratch file='/s/a'/></disk><disk name='vdb'/>"
                                "<disk name='vdc' type='block'><scratch dev='/dev/x'/></disk>"
                                "<disk name='vdd' type='file'><scratch file='/s/d'/></disk></disks></domainbackup>",
                                &paths, &reason), 0);
        CHECK_INT(paths.count, 3);
        CHECK_TEXT(paths.items[0], "/x/y");
        CHECK_TEXT(paths.items[1], "/s/a");
        CHECK_TEXT(paths.items[2], "/s/d");
        CHECK_INT(job_xml_paths("<domainbackup mode='push'/>", &none, &reason), 0);
        CHECK_INT(none.count, 0);
        CHECK_INT(job_xml_paths("<other/>", &none, &reason), -EBADMSG);
}

int main(void) {
        RUN(every_disk_of_a_job_is_named);
        RUN(checkpoint_marks_only_what_can_carry_it);
        RUN(text_that_is_not_utf_8_is_refused);
        RUN(redefinition_has_no_parent_and_only_named_disks);
        RUN(job_on_another_host_is_read_by_tcp);
        RUN(paths_of_a_job_are_found);
        return unit_result();
}
