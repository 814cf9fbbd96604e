#include "sources/qmp-disks.h"

#include <errno.h>

#include "unit.h"

/* JSON with ' for ", so that it can be read. */
static json_t *parse(const char *text) {
        CLEANUP(freep) char *copy = strdup(text);
        json_error_t error;
        json_t *value;

        for (char *c = copy; *c; c++)
                *c = *c == '\'' ? '"' : *c;
        value = json_loads(copy, JSON_DECODE_ANY, &error);
        if (!value)
                fprintf(stderr, "%s: %s\n", error.text, copy);
        CHECK(value);
        return value;
}

static int read_disks(const char *blocks, const char *nodes, QmpDisks *ret, Reason *reterr) {
        CLEANUP(json_decrefp) json_t *block_list = parse(blocks), *node_list = parse(nodes);
        CLEANUP(qmp_nodes_clear) QmpNodes parsed = { 0 };
        int rc = qmp_nodes_parse(node_list, &parsed, reterr);

        return rc < 0 ? rc : qmp_disks_parse(block_list, &parsed, NULL, ret, reterr);
}

#define QCOW2 "'format':'qcow2','virtual-size':4096,'format-specific':{'type':'qcow2','data':{'compat':'1.1'}}"
#define NODES                                                                                                            \
        "[{'node-name':'a','drv':'qcow2','file':'/a','ro':false,'dirty-bitmaps':[{'recording':true},{'name':'x',"        \
        "'recording':true},{'name':'y','inconsistent':true,'recording':false}]},"                                        \
        "{'node-name':'t','drv':'throttle','file':'json:{}','ro':false},{'node-name':'#b','drv':'raw','file':'/b'}]"

static void disks_are_named_by_device_drive_or_node(void) {
        CLEANUP(qmp_disks_clear) QmpDisks disks = { 0 };
        const char *const names[] = { "vd0", "sata1", "drive0", "drive0-2", "a_node", "disk", "disk-2" };
        static const char in[] = "'removable':false,'inserted':{'node-name':'%s','image':{'filename':'/a'," QCOW2 "}}";
        char text[8192], inserted[2][512];
        Reason reason;

        snprintf(inserted[0], sizeof inserted[0], in, "#block1");
        snprintf(inserted[1], sizeof inserted[1], in, "a/node");
        snprintf(text, sizeof text,
                 "[{'device':'','qdev':'/machine/peripheral/vd0/virtio-backend',%s},{'device':'hd','qdev':'sata1',%s},"
                 "{'device':'drive0','qdev':'/machine/peripheral-anon/device[0]',%s},"
                 "{'device':'../drive0','qdev':'/machine/x',%s},"
                 "{'device':'','qdev':'/machine/y',%s},{'device':'','qdev':'/machine/z',%s},"
                 "{'device':'///','qdev':'/machine/z',%s}]",
                 inserted[0], inserted[0], inserted[0], inserted[0], inserted[1], inserted[0], inserted[0]);
        CHECK_INT(read_disks(text, NODES, &disks, &reason), 0);
        CHECK_INT(disks.count, 7);
        for (size_t i = 0; i < disks.count; i++) {
                CHECK_TEXT(disks.items[i].name, names[i]);
                CHECK(!disks.items[i].left_out);
        }
}

static void check_left_out(const char *block, const char *why) {
        CLEANUP(qmp_disks_clear) QmpDisks disks = { 0 };
        Reason reason;

        CHECK_INT(read_disks(block, NODES, &disks, &reason), 0);
        CHECK_INT(disks.count, 1);
        CHECK_TEXT(disks.items[0].left_out, why);
}

static void what_is_no_disk_with_a_medium_is_left_out(void) {
        check_left_out("[{'device':'un','removable':true,'inserted':{'node-name':'a'}}]", "no device of the VM uses it");
        check_left_out("[{'device':'cd','qdev':'/machine/c','removable':true,'tray_open':false}]",
                       "it is a CD-ROM or a floppy");
        check_left_out("[{'device':'cd','qdev':'/machine/c','removable':true,'tray_open':false,'inserted':{'ro':true}}]",
                       "it is a CD-ROM or a floppy");
        check_left_out("[{'device':'d','qdev':'/machine/c','removable':false}]", "it has no medium");
        check_left_out("[{'device':'pflash0','qdev':'/machine/system.flash0','removable':false,'inserted':{'ro':true}}]",
                       "it is firmware that is only read");
}

static void the_images_node_below_a_filter_carries_the_bitmaps(void) {
        CLEANUP(qmp_disks_clear) QmpDisks disks = { 0 };
        Reason reason;

        CHECK_INT(read_disks("[{'device':'','qdev':'v','removable':false,'inserted':{'node-name':'t','drv':'throttle',"
                             "'image':{'filename':'json:{}','format':'throttle','virtual-size':4096,"
                             "'backing-image':{'filename':'/a'," QCOW2 ",'backing-image':{'filename':'/base',"
                             "'format':'raw'}}}}}]", NODES, &disks, &reason), 0);
        CHECK_TEXT(disks.items[0].node, "t");
        CHECK_TEXT(disks.items[0].bitmap_node, "a");
        CHECK(disks.items[0].persistent);
        CHECK_TEXT(disks.items[0].backing, "/base");
        CHECK_INT(disks.items[0].images.count, 2);
        CHECK_TEXT(disks.items[0].images.items[0], "file:/a");
        CHECK_TEXT(disks.items[0].images.items[1], "file:/base");
}

static void check_persistent(const char *node, const char *image, const char *nodes, bool expected) {
        CLEANUP(qmp_disks_clear) QmpDisks disks = { 0 };
        char text[1024];
        Reason reason;

        snprintf(text, sizeof text,
                 "[{'device':'','qdev':'v','removable':false,'inserted':{'node-name':'%s','image':{%s}}}]", node, image);
        CHECK_INT(read_disks(text, nodes, &disks, &reason), 0);
        CHECK_INT(disks.items[0].persistent, expected);
        CHECK_TEXT(disks.items[0].bitmap_node, node);
}

static void only_writable_qcow2_of_version_3_keeps_bitmaps(void) {
        check_persistent("a", "'filename':'/a'," QCOW2, NODES, true);
        check_persistent("a", "'filename':'/a'," QCOW2, "[{'node-name':'a','drv':'qcow2','ro':true}]", false);
        check_persistent("a", "'filename':'/a','format':'qcow2','virtual-size':1,"
                              "'format-specific':{'data':{'compat':'0.10'}}", NODES, false);
        check_persistent("a", "'filename':'/a','format':'qcow2','virtual-size':1", NODES, false);
        check_persistent("#b", "'filename':'/b','format':'raw','virtual-size':1", NODES, false);
        check_persistent("t", "'filename':'json:{}','format':'throttle','virtual-size':1,"
                              "'backing-image':{'filename':'/a'," QCOW2 "}",
                         "[{'node-name':'t','drv':'throttle'},{'node-name':'a','drv':'qcow2','file':'/a'},"
                         "{'node-name':'a2','drv':'qcow2','file':'/a'}]", false); /* which of the two is not clear */
}

static void images_are_known_without_their_passwords(void) {
        CLEANUP(qmp_disks_clear) QmpDisks disks = { 0 };
        Reason reason;

        CHECK_INT(read_disks("[{'device':'','qdev':'v','removable':false,'inserted':{'node-name':'#b','image':{'filename':"
                             "'ssh://me:secret@host/x','format':'raw','virtual-size':1}}},"
                             "{'device':'','qdev':'w','removable':false,'inserted':{'node-name':'#b','image':{'filename':"
                             "'/dev/fdset/3','format':'raw','virtual-size':1}}}]", NODES, &disks, &reason), 0);
        CHECK_TEXT(disks.items[0].images.items[0], "other:ssh://me:***@host/x");
        CHECK_INT(disks.items[1].images.count, 0);
}

static void images_are_looked_at_from_where_qemu_runs(void) {
        CLEANUP(json_decrefp) json_t *blocks = parse("[{'device':'','qdev':'v','removable':false,'inserted':{"
                                                     "'node-name':'a','image':{'filename':'null','format':'raw',"
                                                     "'virtual-size':1}}}]");
        CLEANUP(qmp_disks_clear) QmpDisks known = { 0 }, unknown = { 0 };
        QmpNodes none = { 0 };
        Reason reason;

        CHECK_INT(qmp_disks_parse(blocks, &none, "/dev", &known, &reason), 0);
        CHECK(strncmp(known.items[0].images.items[0], "file:/dev/null#", 15) == 0);
        CHECK_INT(qmp_disks_parse(blocks, &none, "", &unknown, &reason), 0);
        CHECK_TEXT(unknown.items[0].images.items[0], "file:null");
}

static void bitmaps_with_names_are_told(void) {
        CLEANUP(json_decrefp) json_t *list = parse(NODES);
        CLEANUP(qmp_nodes_clear) QmpNodes nodes = { 0 };
        const QmpNode *node;
        Reason reason;

        CHECK_INT(qmp_nodes_parse(list, &nodes, &reason), 0);
        node = qmp_nodes_find(&nodes, "a");
        CHECK_INT(node->bitmap_count, 2);
        CHECK(qmp_node_bitmap(node, "x")->recording && !qmp_node_bitmap(node, "x")->inconsistent);
        CHECK(qmp_node_bitmap(node, "y")->inconsistent);
        CHECK(!qmp_node_bitmap(node, "z") && !qmp_nodes_find(&nodes, "z"));
}

static void check_refused(const char *blocks, const char *nodes) {
        QmpDisks disks = { 0 };
        Reason reason;

        CHECK_INT(read_disks(blocks, nodes, &disks, &reason), -EPROTO);
        CHECK_SAYS(reason, "not of the form that is known");
}

static void answers_of_another_form_are_refused(void) {
        check_refused("{}", "[]");
        check_refused("5", "[]");
        check_refused("[null]", "[]");
        check_refused("[[]]", "[]");
        check_refused("[{'qdev':'v','inserted':7}]", "[]");
        check_refused("[{'qdev':'v','inserted':{}}]", "[]");
        check_refused("[{'qdev':'v','inserted':{'node-name':'a'}}]", "[]");
        check_refused("[{'qdev':'v','inserted':{'node-name':'a','image':{'virtual-size':-1}}}]", "[]");
        check_refused("[{'qdev':'v','inserted':{'node-name':'a','image':{'virtual-size':'big'}}}]", "[]");
        check_refused("[{'qdev':'v','inserted':{'node-name':5,'image':{'virtual-size':1}}}]", "[]");
        check_refused("[]", "{}");
        check_refused("[]", "[null]");
        check_refused("[]", "[{'node-name':'a'}]");
}

static void an_image_without_end_has_one(void) {
        CLEANUP(json_decrefp) json_t *blocks =
                parse("[{'qdev':'v','inserted':{'node-name':'a','image':{'virtual-size':1}}}]");
        CLEANUP(qmp_disks_clear) QmpDisks disks = { 0 };
        QmpNodes none = { 0 };
        json_t *image = json_object_get(json_object_get(json_array_get(blocks, 0), "inserted"), "image");
        Reason reason;

        for (int i = 0; i < 3000; i++) {
                json_t *below = json_pack("{s:s, s:s}", "filename", "/x", "format", "qcow2");

                json_object_set_new(image, "backing-image", below);
                image = below;
        }
        CHECK_INT(qmp_disks_parse(blocks, &none, NULL, &disks, &reason), 0);
        CHECK(disks.items[0].images.count <= 1024);
}

int main(void) {
        RUN(disks_are_named_by_device_drive_or_node);
        RUN(what_is_no_disk_with_a_medium_is_left_out);
        RUN(the_images_node_below_a_filter_carries_the_bitmaps);
        RUN(only_writable_qcow2_of_version_3_keeps_bitmaps);
        RUN(images_are_known_without_their_passwords);
        RUN(images_are_looked_at_from_where_qemu_runs);
        RUN(bitmaps_with_names_are_told);
        RUN(answers_of_another_form_are_refused);
        RUN(an_image_without_end_has_one);
        return unit_result();
}
