/* Libraries that are loaded when they are first needed. */
#include <errno.h>
#include <string.h>

#include "libraries/library.h"
#include "unit.h"

static void a_library_that_is_not_there_names_its_package(void) {
        static const char *const symbols[] = { "f" };
        void *addresses[1] = { NULL };
        Library library = { "libnowhere.so.7", "libnowhere7", symbols, 1, addresses };
        Reason reason = REASON_INIT;

        CHECK_INT(library_load(&library, &reason), -ENOPKG);
        CHECK(strstr(reason.text, "cannot load libnowhere.so.7: "));
        CHECK(strstr(reason.text, ": the package libnowhere7 has it"));
}

static void a_library_without_a_function_is_too_old(void) {
        static const char *const symbols[] = { "LZ4_versionNumber", "LZ4_of_tomorrow" };
        void *addresses[2] = { NULL };
        Library library = { "liblz4.so.1", "liblz4-1", symbols, 2, addresses };
        Reason reason = REASON_INIT;

        CHECK_INT(library_load(&library, &reason), -ENOPKG);
        CHECK_TEXT(reason.text, "liblz4.so.1 is too old: it has no LZ4_of_tomorrow");
}

static void a_loaded_function_can_be_called(void) {
        static const char *const symbols[] = { "LZ4_versionNumber" };
        int (*version)(void) = NULL;
        Library library = { "liblz4.so.1", "liblz4-1", symbols, 1, (void **) &version };
        Reason reason = REASON_INIT;

        CHECK_INT(library_load(&library, &reason), 0);
        CHECK(version && version() >= 10000);
        CHECK_INT(library_load(&library, &reason), 0);
}

int main(void) {
        RUN(a_library_that_is_not_there_names_its_package);
        RUN(a_library_without_a_function_is_too_old);
        RUN(a_loaded_function_can_be_called);
        return unit_result();
}
