#include "formats/format.h"

#include <string.h>

#include "formats/kept.h"
#include "formats/native/layer-reader.h"
#include "formats/qcow2/find.h"
#include "formats/qcow2/layer-reader.h"
#include "formats/raw.h"
#include "formats/virtnbdbackup/virtnbdbackup.h"
#include "formats/vma/vma.h"

static const Format native = { "native", native_layer_open, NULL };
static const Format virtnbdbackup = { "virtnbdbackup", virtnbdbackup_open, virtnbdbackup_find };
static const Format qcow2 = { "qcow2", qcow2_layer_open, qcow2_find };
static const Format kept = { "kept", kept_open, NULL };
static const Format raw = { "raw", raw_open, raw_find };

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
