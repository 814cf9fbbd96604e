#include "sources/libvirt-domain.h"

#include <errno.h>

#include "util/xml.h"
#include "unit.h"

#define DISKS(xml) "<domain type='qemu'><devices>" xml "</devices></domain>"

static int parse(const char *text, Domain *ret, Reason *reason) {
        *reason = REASON_INIT;
        return domain_parse(text, false, ret, reason);
}

static void disks_are_told_apart(void) {
        CLEANUP(domain_clear) Domain d = { 0 };
        Reason reason;

        CHECK_INT(parse(DISKS(
                "<disk type='file' device='disk'><driver type='qcow2'/><source file='/a'/><target dev='vda'/></disk>"
                "<disk type='file'><driver name='qemu' type='raw'/><source file='/b'/><target dev='vdb'/></disk>"
                "<disk type='file' device='cdrom'><source file='/c'/><target dev='sda'/></disk>"
                "<disk type='file' device='cdrom'><target dev='sdb'/></disk>"
                "<disk type='file' device='floppy'><source file='/c'/><target dev='fda'/></disk>"
                "<disk type='block' device='lun'><source dev='/dev/sdq'/><target dev='sdc'/></disk>"
                "<disk type='vhostuser' device='disk'><source type='unix' path='/s'/><target dev='vdc'/></disk>"
                "<disk type='file' device='disk'><driver type='qcow2'/><target dev='vdd'/></disk>"
                "<disk type='file'><driver type='qcow2'/><source file='/e'/><target dev='vde'/><readonly/></disk>"
                "<disk type='file'><driver type='qcow2'/><source file='/f'><encryption format='luks'/></source>"
                "<target dev='vdf'/></disk>"), &d, &reason), 0);
        CHECK_INT(d.disk_count, 10);
        CHECK(!d.disks[0].left_out && !d.disks[0].why_not && !d.disks[0].encrypted);
        CHECK_TEXT(d.disks[1].why_not, "raw image cannot carry a bitmap");
        CHECK_TEXT(d.disks[2].left_out, "it is a CD-ROM");
        CHECK_TEXT(d.disks[3].left_out, "it is a CD-ROM");
        CHECK_TEXT(d.disks[4].left_out, "it is a floppy");
        CHECK(strstr(d.disks[5].left_out, "lun"));
        CHECK(strstr(d.disks[6].left_out, "vhost"));
        CHECK_TEXT(d.disks[7].left_out, "it has no image");
        CHECK(strstr(d.disks[8].why_not, "read-only"));
        CHECK(d.disks[9].encrypted && !d.disks[9].why_not);
}

static void images_are_named_from_the_top_down(void) {
        CLEANUP(domain_clear) Domain d = { 0 };
        Reason reason;

        CHECK_INT(parse(DISKS(
                "<disk type='file'><driver type='qcow2'/><source file='/top'/><backingStore type='block'>"
                "<format type='raw'/><source dev='/dev/vg/lv'/><backingStore type='network'>"
                "<source protocol='rbd' name='pool/image'><host name='h'/></source><backingStore type='volume'>"
                "<source pool='p' volume='v'/><backingStore/>"
                "</backingStore></backingStore></backingStore><target dev='vda'/></disk>"), &d, &reason), 0);
        CHECK_INT(d.disks[0].images.count, 4);
        CHECK_TEXT(d.disks[0].images.items[0], "file:/top");
        CHECK_TEXT(d.disks[0].images.items[1], "block:/dev/vg/lv");
        CHECK_TEXT(d.disks[0].images.items[2], "network:rbd:pool/image");
        CHECK_TEXT(d.disks[0].images.items[3], "volume:p/v");
}

static void local_file_is_known_by_more_than_its_name(void) {
        char path[] = "/tmp/test-libvirt-domain.XXXXXX", xml[512];
        const unsigned char version_2[] = { 'Q', 'F', 'I', 0xfb, 0, 0, 0, 2 };
        CLEANUP(domain_clear) Domain d = { 0 };
        Reason reason = REASON_INIT;
        int fd = mkstemp(path);

        CHECK(fd >= 0);
        CHECK_INT(write(fd, version_2, sizeof version_2), sizeof version_2);
        close(fd);
        snprintf(xml, sizeof xml,
                 DISKS("<disk type='file'><driver type='qcow2'/><source file='%s'/><target dev='vda'/></disk>"), path);
        CHECK_INT(domain_parse(xml, true, &d, &reason), 0);
        CHECK(strncmp(d.disks[0].images.items[0], "file:/tmp/test-libvirt-domain.", 30) == 0);
        CHECK(strchr(d.disks[0].images.items[0], '#'));
        CHECK(strstr(d.disks[0].why_not, "version 2"));
        unlink(path);
}

static void check_agent(const char *target, DomainAgent expected) {
        CLEANUP(domain_clear) Domain d = { 0 };
        char xml[512];

        snprintf(xml, sizeof xml, DISKS("<channel type='unix'><target type='virtio' name='org.spice'/></channel>"
                                        "<channel type='unix'>%s</channel>"), target);
        CHECK_INT(domain_parse(xml, false, &d, NULL), 0);
        CHECK_INT(d.agent, expected);
}

static void the_agent_is_where_its_channel_is_connected(void) {
        check_agent("<target type='virtio' name='org.qemu.guest_agent.0' state='connected'/>", AGENT_THERE);
        check_agent("<target type='virtio' name='org.qemu.guest_agent.0' state='disconnected'/>", AGENT_AWAY);
        check_agent("<target type='virtio' name='org.qemu.guest_agent.0'/>", AGENT_AWAY);
        check_agent("<target type='virtio' name='com.redhat.spice.0' state='connected'/>", AGENT_NONE);
        check_agent("", AGENT_NONE);
}

static void names_that_cannot_be_files_are_refused(void) {
        static const char *const names[] = { "../../etc", "a/b", ".hidden", "", "-x", "v\xc3\xa4", "a&#10;b",
                                             "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" };
        char xml[512];

        for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
                CLEANUP(domain_clear) Domain d = { 0 };
                Reason reason;

                snprintf(xml, sizeof xml, DISKS("<disk type='file'><source file='/a'/><target dev='%s'/></disk>"), names[i]);
                CHECK_INT(parse(xml, &d, &reason), -EBADMSG);
                CHECK_SAYS(reason, "name that cannot be");
        }
}

static void two_disks_of_a_name_are_refused(void) {
        CLEANUP(domain_clear) Domain d = { 0 };
        Reason reason;

        CHECK_INT(parse(DISKS("<disk><source file='/a'/><target dev='vda'/></disk>"
                              "<disk><source file='/b'/><target dev='vda'/></disk>"),
                        &d, &reason), -EBADMSG);
        CHECK_SAYS(reason, "two disks named vda");
}

static void entities_and_other_documents_are_refused(void) {
        CLEANUP(domain_clear) Domain d = { 0 };
        Reason reason;

        CHECK_INT(parse("<!DOCTYPE domain [<!ENTITY x SYSTEM 'file:///etc/passwd'>]>"
                        "<domain><devices>&x;</devices></domain>", &d, &reason), -EBADMSG);
        CHECK_SAYS(reason, "document type");
        CHECK_INT(parse("<!DOCTYPE d [<!ENTITY a 'aaaaaaaa'><!ENTITY b '&a;&a;&a;&a;'>]>"
                        "<domain>&b;</domain>", &d, &reason), -EBADMSG);
        CHECK_INT(parse("<domainsnapshot/>", &d, &reason), -EBADMSG);
        CHECK_SAYS(reason, "no <domain>");
        CHECK_INT(parse("<domain><devices>", &d, &reason), -EBADMSG);
        CHECK_SAYS(reason, "not well-formed");
        CHECK_INT(parse("", &d, &reason), -EBADMSG);
}

static void huge_documents_are_refused(void) {
        CLEANUP(domain_clear) Domain d = { 0 };
        CLEANUP(freep) char *text = malloc(XML_TEXT_LIMIT + 2);
        Reason reason;

        memset(text, ' ', XML_TEXT_LIMIT + 1);
        text[XML_TEXT_LIMIT + 1] = 0;
        CHECK_INT(parse(text, &d, &reason), -EFBIG);

        /* A chain of backing files without end. */
        text[0] = 0;
        strcpy(text, "<domain><devices><disk><source file='/a'/>");
        for (char *at = text + strlen(text), *end = text + XML_TEXT_LIMIT / 2; at < end;)
                at = stpcpy(at, "<backingStore><source file='/a'/>");
        CHECK_INT(parse(text, &d, &reason), -EBADMSG);
}

static void check_file(const Domain *d, const char *name, const char *path) {
        for (size_t i = 0; i < d->file_count; i++)
                if (strcmp(d->files[i].name, name) == 0) {
                        if (path)
                                CHECK_TEXT(d->files[i].path, path);
                        else
                                CHECK(!d->files[i].path);
                        return;
                }
        CHECK(!"the file is there");
}

static void what_the_vm_needs_beside_its_disks_is_found(void) {
        CLEANUP(domain_clear) Domain old = { 0 }, new = { 0 }, network = { 0 }, plain = { 0 };
        Reason reason;

        CHECK_INT(parse("<domain><os><nvram template='/t'>/var/n.fd</nvram></os></domain>", &old, &reason), 0);
        CHECK_INT(old.file_count, 1);
        check_file(&old, "nvram", "/var/n.fd");
        CHECK_INT(parse("<domain><os><loader readonly='yes' type='pflash'>/usr/code.fd</loader>"
                        "<nvram type='file'><source file='/var/m.fd'/></nvram><kernel>/k</kernel><initrd>/i</initrd>"
                        "<dtb>/d</dtb><varstore template='/t' path='/var/v.json'/></os></domain>", &new, &reason), 0);
        CHECK_INT(new.file_count, 6);
        check_file(&new, "nvram", "/var/m.fd");
        check_file(&new, "loader", "/usr/code.fd");
        check_file(&new, "kernel", "/k");
        check_file(&new, "initrd", "/i");
        check_file(&new, "dtb", "/d");
        check_file(&new, "varstore", "/var/v.json");
        CHECK_INT(parse("<domain><os><nvram type='network'><source protocol='iscsi'/></nvram></os></domain>",
                        &network, &reason), 0);
        check_file(&network, "nvram", NULL);
        CHECK_INT(parse("<domain><os><loader type='rom'/><nvram template='/t'/></os></domain>", &plain, &reason), 0);
        CHECK_INT(plain.file_count, 0);
}

static void only_an_emulated_tpm_has_state(void) {
        CLEANUP(domain_clear) Domain two = { 0 }, old = { 0 }, elsewhere = { 0 }, real = { 0 };

        CHECK_INT(parse("<domain><devices><tpm><backend type='emulator' version='2.0'/></tpm></devices></domain>", &two,
                        &(Reason) { "" }), 0);
        CHECK_TEXT(two.tpm, "tpm2");
        CHECK(!two.tpm_path);
        CHECK_INT(parse("<domain><devices><tpm><backend type='emulator' version='1.2'/></tpm></devices></domain>", &old,
                        &(Reason) { "" }), 0);
        CHECK_TEXT(old.tpm, "tpm1.2");
        CHECK_INT(parse("<domain><devices><tpm><backend type='emulator'><source type='dir' path='/var/t'/></backend></tpm>"
                        "</devices></domain>", &elsewhere, &(Reason) { "" }), 0);
        CHECK_TEXT(elsewhere.tpm_path, "/var/t");
        CHECK_INT(parse("<domain><devices><tpm><backend type='passthrough'/></tpm></devices></domain>", &real,
                        &(Reason) { "" }), 0);
        CHECK(!real.tpm);
}

int main(void) {
        RUN(disks_are_told_apart);
        RUN(images_are_named_from_the_top_down);
        RUN(local_file_is_known_by_more_than_its_name);
        RUN(the_agent_is_where_its_channel_is_connected);
        RUN(names_that_cannot_be_files_are_refused);
        RUN(two_disks_of_a_name_are_refused);
        RUN(entities_and_other_documents_are_refused);
        RUN(huge_documents_are_refused);
        RUN(what_the_vm_needs_beside_its_disks_is_found);
        RUN(only_an_emulated_tpm_has_state);
        return unit_result();
}
