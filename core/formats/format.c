#include "formats/format.h"

#include <string.h>

#include "formats/native/layer-reader.h"

static const Format native = { "native", native_layer_open, NULL };

const Format *const formats[] = {
        &native,
        NULL,
};

const Format *format_named(const char *name) {
        for (size_t i = 0; formats[i]; i++)
                if (strcmp(formats[i]->name, name) == 0)
                        return formats[i];
        return NULL;
}
