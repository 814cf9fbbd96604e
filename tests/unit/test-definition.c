#include "machine/definition.h"

#include <errno.h>

#include "unit.h"
#include "util/cleanup.h"

#define UUID "11111111-2222-3333-4444-555555555555"
#define OTHER "99999999-8888-7777-6666-555555555555"
#define DOMAIN(os, devices)                                                                                        \
        "<domain type='kvm' id='7'><name>vm1</name><uuid>" UUID "</uuid><genid>" UUID "</genid><os><type>hvm</type>" os \
        "</os><sysinfo type='smbios'><system><entry name='uuid'>" UUID "</entry></system></sysinfo>"                 \
        "<cputune><vcpupin vcpu='0' cpuset='9'/></cputune><devices>" devices "</devices>"                              \
        "<seclabel type='dynamic' model='dac' relabel='yes'><label>+1:+1</label></seclabel></domain>"
#define DISK(attributes, name, rest) "<disk " attributes "><target dev='" name "' bus='virtio'/>" rest "</disk>"

static const MachineDisk vda = { .name = "vda", .path = "/new/a&b.qcow2", .format = "qcow2" };

typedef struct Made {
        char *text;
        Strings notes;
} Made;

static void made_clear(Made *made) {
        free(made->text);
        strings_free(&made->notes);
}

static Made make(const char *text, DefinitionWish wish) {
        Made made = { 0 };
        Reason reason = REASON_INIT;

        wish.name = wish.name ?: "vm2";
        if (definition_make(text, &wish, &made.text, &made.notes, &reason) < 0) {
                fprintf(stderr, "%s\n", reason.text);
                exit(1);
        }
        return made;
}

static DefinitionWish with_disk(const char *uuid) {
        return (DefinitionWish) { .uuid = uuid, .disks = &vda, .disk_count = 1 };
}

static bool is_noted(const Made *made, const char *words) {
        for (size_t i = 0; i < made->notes.count; i++)
                if (strstr(made->notes.items[i], words))
                        return true;
        return false;
}

static void new_identity_has_nothing_of_the_old_one(void) {
        const char *text = DOMAIN("", "<interface type='bridge'><mac address='52:54:00:01:02:03'/><source bridge='br0'/>"
                                      "<target dev='tap7'/></interface>"
                                      "<vsock model='virtio'><cid auto='no' address='3'/></vsock>"
                                      "<graphics type='vnc' port='5907' autoport='no' listen='127.0.0.1'/>"
                                      "<serial type='unix'><source mode='bind' path='/run/line'/></serial>"
                                      "<channel type='unix'><source mode='bind' path='/run/agent'/>"
                                      "<target type='virtio' name='org.qemu.guest_agent.0' state='connected'/></channel>");
        static const char *const gone[] = { UUID, "id=\"7\"", ">vm1<", "52:54:00:01:02:03", "tap7", "address=\"3\"", "5907",
                                            "/run/line", "/run/agent", "connected", "dynamic" };
        CLEANUP(made_clear) Made made = make(text, with_disk(OTHER));

        for (size_t i = 0; i < sizeof gone / sizeof *gone; i++)
                CHECK(!strstr(made.text, gone[i]));
        CHECK(strstr(made.text, "<name>vm2</name>"));
        CHECK(strstr(made.text, "<uuid>" OTHER "</uuid>"));
        CHECK(strstr(made.text, "<entry name=\"uuid\">" OTHER "</entry>"));
        CHECK(strstr(made.text, "<mac address=\"52:54:00:"));
        CHECK(strstr(made.text, "br0"));
        CHECK(strstr(made.text, "<cid auto=\"yes\"/>"));
        CHECK(strstr(made.text, "autoport=\"yes\""));
        CHECK(strstr(made.text, "<serial type=\"pty\"/>"));
        CHECK(is_noted(&made, "serial line no longer leads to /run/line"));
}

static void kept_identity_is_the_old_one(void) {
        const char *text = DOMAIN("", "<interface type='bridge'><mac address='52:54:00:01:02:03'/></interface>"
                                      "<graphics type='vnc' port='5907' autoport='no'/>"
                                      "<serial type='unix'><source mode='bind' path='/tmp/line'/></serial>"
                                      "<parallel type='file'><source path='/no/such/directory/line'/></parallel>");
        CLEANUP(made_clear) Made made = make(text, with_disk(NULL));

        CHECK(strstr(made.text, "<uuid>" UUID "</uuid>"));
        CHECK(strstr(made.text, "<genid>" UUID "</genid>"));
        CHECK(strstr(made.text, "52:54:00:01:02:03"));
        CHECK(strstr(made.text, "5907"));
        CHECK(strstr(made.text, "/tmp/line"));
        CHECK(strstr(made.text, "<parallel type=\"pty\"/>"));
}

static void disks_are_the_given_ones(void) {
        const char *text = DOMAIN("", DISK("type='network' device='disk'", "vda",
                                           "<driver name='qemu' type='raw' cache='none'><metadata_cache/></driver>"
                                           "<auth username='u'><secret type='ceph' uuid='" UUID "'/></auth>"
                                           "<source protocol='rbd' name='pool/image'><host name='h'/>"
                                           "<seclabel model='dac' relabel='no'/></source>"
                                           "<backingStore type='file'><format type='qcow2'/><source file='/old'/>"
                                           "</backingStore>"
                                           "<mirror type='file' job='copy'><source file='/copy'/></mirror><shareable/>")
                                      DISK("type='file' device='disk'", "vdb", "<source file='/first/vdb.qcow2'/>"));
        static const char *const gone[] = { "rbd", "pool/image", "auth", "/old", "mirror", "/first", "vdb", "shareable",
                                            "metadata" };
        CLEANUP(made_clear) Made made = make(text, with_disk(OTHER));

        for (size_t i = 0; i < sizeof gone / sizeof *gone; i++)
                CHECK(!strstr(made.text, gone[i]));
        CHECK(strstr(made.text, "<disk type=\"file\" device=\"disk\">"));
        CHECK(strstr(made.text, "<source file=\"/new/a&amp;b.qcow2\"/>"));
        CHECK(strstr(made.text, "<driver name=\"qemu\" type=\"qcow2\" cache=\"none\"/>"));
        CHECK(strstr(made.text, "<backingStore/>"));
        CHECK(is_noted(&made, "disk vdb is not in the point"));
        CHECK(is_noted(&made, "disk vda cannot be shared"));
}

static void overlay_and_block_device_are_told_as_such(void) {
        const MachineDisk disks[] = {
                { .name = "vda", .path = "/o.qcow2", .format = "qcow2", .backing = "/mnt/vm1/latest/vda.raw" },
                { .name = "vdb", .path = "/dev/vg/lv", .format = "raw", .block = true },
        };
        CLEANUP(made_clear) Made made = make(DOMAIN("", DISK("type='file'", "vda", "") DISK("type='file'", "vdb", "")),
                                             (DefinitionWish) { .uuid = OTHER, .disks = disks, .disk_count = 2 });

        CHECK(strstr(made.text, "<source file=\"/mnt/vm1/latest/vda.raw\"/>\n"));
        CHECK(strstr(made.text, "<format type=\"raw\"/>"));
        CHECK(strstr(made.text, "<disk type=\"block\">"));
        CHECK(strstr(made.text, "<source dev=\"/dev/vg/lv\"/>"));
}

static void medium_that_is_not_here_is_taken_out(void) {
        const char *text = DOMAIN("", DISK("type='file' device='cdrom'", "sda", "<source file='/no/such.iso'/>")
                                      DISK("type='file' device='cdrom'", "sdb", "<source file='/dev/null'/>"));
        CLEANUP(made_clear) Made made = make(text, with_disk(OTHER));

        CHECK(!strstr(made.text, "/no/such.iso"));
        CHECK(strstr(made.text, "dev=\"sda\""));
        CHECK(strstr(made.text, "<source file=\"/dev/null\"/>"));
        CHECK(is_noted(&made, "drive sda is empty"));
}

static void kept_files_take_the_place_of_the_old_ones(void) {
        const char *text = DOMAIN("<loader readonly='yes' type='pflash'>/no/such/CODE.fd</loader>"
                                  "<nvram template='/no/such/VARS.fd'>/var/lib/vm1_VARS.fd</nvram>"
                                  "<kernel>/no/such/kernel</kernel><initrd>/no/such/initrd</initrd>", "");
        const MachineFile files[] = { { "loader", "/kept/loader" }, { "nvram", "/kept/nvram" },
                                      { "kernel", "/kept/kernel" } };
        CLEANUP(strings_free) Strings wanted = { 0 };
        CLEANUP(made_clear) Made made = make(text, (DefinitionWish) { .uuid = OTHER, .files = files, .file_count = 3 });

        CHECK(strstr(made.text, ">/kept/loader</loader>"));
        CHECK(strstr(made.text, "<nvram>/kept/nvram</nvram>"));
        CHECK(strstr(made.text, "<kernel>/kept/kernel</kernel>"));
        CHECK(strstr(made.text, "<initrd>/no/such/initrd</initrd>"));
        CHECK(is_noted(&made, "its initrd /no/such/initrd was not kept"));
        CHECK_INT(definition_files(text, &wanted, NULL), 0);
        CHECK_INT(wanted.count, 4);
        CHECK_TEXT(wanted.items[0], "kernel");
        CHECK_TEXT(wanted.items[2], "loader");
}

static void firmware_of_this_host_serves(void) {
        const char *text = DOMAIN("<loader readonly='yes' type='pflash'>/dev/null</loader>"
                                  "<nvram template='/dev/zero'>/var/lib/vm1_VARS.fd</nvram>", "");
        CLEANUP(strings_free) Strings wanted = { 0 };
        CLEANUP(made_clear) Made made = make(text, (DefinitionWish) { .uuid = OTHER });

        CHECK(strstr(made.text, ">/dev/null</loader>"));
        CHECK(strstr(made.text, "<nvram template=\"/dev/zero\"/>"));
        CHECK(is_noted(&made, "its NVRAM was not kept"));
        CHECK_INT(definition_files(text, &wanted, NULL), 0);
        CHECK_INT(wanted.count, 1);
        CHECK_TEXT(wanted.items[0], "nvram");
}

static void test_reaches_nothing_outside(void) {
        const char *text = "<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>"
                           "<name>vm1</name><uuid>" UUID "</uuid><vcpu cpuset='0-3'>2</vcpu><devices>"
                           "<interface type='network'><mac address='52:54:00:01:02:03'/><source network='default'/>"
                           "<model type='virtio'/><bandwidth/><driver queues='4'/><address type='pci' bus='0x01'/>"
                           "</interface>"
                           "<hostdev mode='subsystem' type='pci'/><filesystem type='mount'><source dir='/'/></filesystem>"
                           "<graphics type='spice' port='5900' listen='0.0.0.0' passwd='x'><listen type='address' "
                           "address='0.0.0.0'/></graphics>"
                           "<tpm><backend type='passthrough'><device path='/dev/tpm0'/></backend></tpm>"
                           "<input type='passthrough'><source evdev='/dev/input/event1'/></input>"
                           "<audio id='1' type='pulseaudio'/>"
                           "</devices><qemu:commandline><qemu:arg value='-nic'/></qemu:commandline></domain>";
        static const char *const gone[] = { "default", "bandwidth", "queues", "hostdev", "filesystem", "0.0.0.0", "tpm0",
                                            "evdev", "pulse", "commandline", "cpuset" };
        DefinitionWish wish = with_disk(OTHER);
        CLEANUP(made_clear) Made made = { 0 };

        wish.isolated = true;
        wish.console = "/run/console";
        wish.agent = "/run/agent";
        made = make(text, wish);
        for (size_t i = 0; i < sizeof gone / sizeof *gone; i++)
                CHECK(!strstr(made.text, gone[i]));
        CHECK(strstr(made.text, "<interface type=\"user\">"));
        CHECK(strstr(made.text, "<link state=\"down\"/>"));
        CHECK(strstr(made.text, "bus=\"0x01\""));
        CHECK(strstr(made.text, "<serial type=\"unix\">"));
        CHECK(strstr(made.text, "<source mode=\"connect\" path=\"/run/console\"/>"));
        CHECK(strstr(made.text, "<target type=\"virtio\" name=\"org.qemu.guest_agent.0\"/>"));
        CHECK(strstr(made.text, "<source mode=\"bind\" path=\"/run/agent\"/>"));
        CHECK(is_noted(&made, "arguments that its definition has for QEMU"));
}

static void host_without_kvm_emulates(void) {
        DefinitionWish wish = with_disk(OTHER);
        const char *text = "<domain type='kvm'><name>vm1</name><uuid>" UUID "</uuid><features><acpi/><hyperv/></features>"
                           "<cpu mode='host-passthrough' check='none'><topology sockets='1' cores='2' threads='1'/>"
                           "<feature policy='require' name='vmx'/></cpu><devices/></domain>";
        CLEANUP(made_clear) Made made = { 0 };

        wish.emulated = true;
        made = make(text, wish);
        CHECK(strstr(made.text, "<domain type=\"qemu\">"));
        CHECK(strstr(made.text, "<topology"));
        CHECK(!strstr(made.text, "host-passthrough") && !strstr(made.text, "vmx") && !strstr(made.text, "hyperv"));
}

static void identity_is_told(void) {
        char uuid[UUID_STR_LEN];
        CLEANUP(freep) char *name = NULL;
        Reason reason = REASON_INIT;

        CHECK_INT(definition_identity("<domain><name>a b</name><uuid>ABCDEF00-2222-3333-4444-555555555555</uuid></domain>",
                                      &name, uuid, NULL), 0);
        CHECK_TEXT(name, "a b");
        CHECK_TEXT(uuid, "abcdef00-2222-3333-4444-555555555555");
        CHECK_INT(definition_identity("<domain><name>x</name></domain>", &name, uuid, &reason), -EBADMSG);
        CHECK_SAYS(reason, "has no UUID");
        CHECK_INT(definition_identity("<network/>", &name, uuid, &reason), -EBADMSG);
        CHECK_SAYS(reason, "is no <domain>");
}

static void what_is_no_definition_is_refused(void) {
        DefinitionWish wish = with_disk(OTHER);
        char *text = NULL;
        Strings notes = { 0 };
        Reason reason = REASON_INIT;

        wish.name = "x";
        CHECK_INT(definition_make("<domain><name>", &wish, &text, &notes, &reason), -EBADMSG);
        CHECK_SAYS(reason, "not well-formed");
        CHECK_INT(definition_make("<domain><name>a</name></domain>", &wish, &text, &notes, &reason), -EBADMSG);
        CHECK_SAYS(reason, "has no devices");
        wish.name = "\xff";
        CHECK_INT(definition_make("<domain><name>a</name><devices/></domain>", &wish, &text, &notes, &reason), -EINVAL);
        CHECK_SAYS(reason, "cannot write the definition");
}

int main(void) {
        RUN(new_identity_has_nothing_of_the_old_one);
        RUN(kept_identity_is_the_old_one);
        RUN(disks_are_the_given_ones);
        RUN(overlay_and_block_device_are_told_as_such);
        RUN(medium_that_is_not_here_is_taken_out);
        RUN(kept_files_take_the_place_of_the_old_ones);
        RUN(firmware_of_this_host_serves);
        RUN(test_reaches_nothing_outside);
        RUN(host_without_kvm_emulates);
        RUN(identity_is_told);
        RUN(what_is_no_definition_is_refused);
        return unit_result();
}
