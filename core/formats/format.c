#include "formats/format.h"

#include <string.h>

#include "formats/kept.h"
#include "formats/native/layer-reader.h"
#include "formats/qcow2/find.h"
#include "formats/qcow2/layer-reader.h"
#include "formats/raw.h"
#include "formats/virtnbdbackup/virtnbdbackup.h"
#include "formats/vma/vma.h"

static const Format native = { .name = "native", .open = native_layer_open };
static const Format virtnbdbackup = {
        .name = "virtnbdbackup", .open = virtnbdbackup_open, .find = virtnbdbackup_find, .check = virtnbdbackup_check,
};
static const Format qcow2 = { .name = "qcow2", .open = qcow2_layer_open, .find = qcow2_find };
static const Format kept = { .name = "kept", .open = kept_open };
static const Format raw = { .name = "raw", .open = raw_open, .find = raw_find };

const Format *const formats[] = {
        &native,
        &virtnbdbackup,
        &qcow2,
        &kept,
        &vma_format,
        &raw, /* the last: it takes what begins as a disk does */
        NULL,
};

const Format *format_named(const char *name) {
        for (size_t i = 0; formats[i]; i++)
                if (strcmp(formats[i]->name, name) == 0)
                        return formats[i];
        return NULL;
}
