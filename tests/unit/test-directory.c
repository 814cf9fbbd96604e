#include "util/directory.h"

#include <errno.h>
#include <sys/stat.h>

#include "temporary.h"
#include "util/file.h"

static void removing_a_tree_leaves_what_its_links_name(void) {
        WITH_DIRECTORY(t);
        struct stat st;

        CHECK_INT(create_file(t.fd, "kept", "x", 1, NULL), 0);
        CHECK_INT(make_directory(t.fd, "tree", NULL), 0);
        CHECK_INT(make_directory(t.fd, "tree/below", NULL), 0);
        CHECK_INT(create_file(t.fd, "tree/below/.hidden", "x", 1, NULL), 0);
        CHECK_INT(symlinkat("../kept", t.fd, "tree/link"), 0);
        CHECK_INT(symlinkat(t.path, t.fd, "tree/below/up"), 0);
        CHECK_INT(remove_tree(t.fd, "tree", NULL), 0);
        CHECK_INT(fstatat(t.fd, "tree", &st, 0), -1);
        CHECK_INT(fstatat(t.fd, "kept", &st, 0), 0);
        CHECK_INT(remove_tree(t.fd, "tree", NULL), 0);
        CHECK_INT(symlinkat(".", t.fd, "itself"), 0);
        CHECK_INT(remove_tree(t.fd, "itself", NULL), -ELOOP);
}

static void lists_are_sorted_and_without_hidden_names(void) {
        WITH_DIRECTORY(t);
        CLEANUP(strings_free) Strings names = { 0 };
        char name[8];

        for (int i = 99; i >= 0; i--) {
                snprintf(name, sizeof name, "%s%02d", i % 2 ? "." : "", i);
                CHECK_INT(create_file(t.fd, name, "", 0, NULL), 0);
        }
        CHECK_INT(list_directory(t.fd, ".", &names, NULL), 0);
        CHECK_INT(names.count, 50);
        for (size_t i = 0; i < names.count; i++) {
                snprintf(name, sizeof name, "%02zu", i * 2);
                CHECK_TEXT(names.items[i], name);
        }
}

int main(void) {
        RUN(removing_a_tree_leaves_what_its_links_name);
        RUN(lists_are_sorted_and_without_hidden_names);
        return unit_result();
}
