#include "sources/job-xml.h"

#include <errno.h>

#include "unit.h"

static const JobDisk disks[] = {
        { .name = "vda", .backup = true, .incremental = true, .checkpoint = true, .scratch = "/s/a&b" },
        { .name = "vdb", .backup = true, .scratch = "/s/<b>" },
        { .name = "sda" },
};

static void every_disk_of_a_job_is_named(void) {
        CLEANUP(freep) char *text = NULL;

        CHECK_INT(job_xml_backup(disks, 3, "base", "/run/s", &text, NULL), 0);
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

        CHECK_INT(job_xml_backup(&bad, 1, NULL, "/run/s", &text, &reason), -EINVAL);
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

static void socket_of_a_job_is_found(void) {
        CLEANUP(freep) char *socket = NULL;
        Reason reason = REASON_INIT;

        CHECK_INT(job_xml_socket("<domainbackup mode='pull'><server transport='unix' socket='/x/y'/></domainbackup>",
                                 &socket, &reason), 0);
        CHECK_TEXT(socket, "/x/y");
        free(STEAL_PTR(socket));
        CHECK_INT(job_xml_socket("<domainbackup mode='push'/>", &socket, &reason), 0);
        CHECK(!socket);
        CHECK_INT(job_xml_socket("<other/>", &socket, &reason), -EBADMSG);
}

int main(void) {
        RUN(every_disk_of_a_job_is_named);
        RUN(checkpoint_marks_only_what_can_carry_it);
        RUN(text_that_is_not_utf_8_is_refused);
        RUN(redefinition_has_no_parent_and_only_named_disks);
        RUN(socket_of_a_job_is_found);
        return unit_result();
}
