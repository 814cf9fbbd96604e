#include "repository/repository.h"

#include <errno.h>
#include <sys/stat.h>

#include "repository-fixture.h"
#include "util/file.h"
#include "util/sealed-json.h"

static void an_empty_directory_becomes_a_repository(void) {
        WITH_DIRECTORY(t);
        CLEANUP(repository_freep) Repository *repository = NULL;
        CLEANUP(strings_free) Strings names = { 0 };
        Reason reason = REASON_INIT;
        struct stat st;

        CHECK_INT(mkdirat(t.fd, "lost+found", 0700), 0);
        CHECK_INT(repository_init(t.path, &reason), 0);
        CHECK_INT(fstatat(t.fd, "repository.json", &st, 0), 0);
        CHECK_INT(st.st_mode & 0777, 0600);
        CHECK_INT(fstatat(t.fd, "vms", &st, 0), 0);
        CHECK_INT(st.st_mode & 0777, 0700);
        CHECK_INT(repository_open(t.path, 0, &repository, &reason), 0);
        CHECK_INT(strlen(repository_uuid(repository)), 36);
        CHECK_INT(repository_path(repository)[0], '/');
        CHECK_INT(repository_list_vms(repository, &names, &reason), 0);
        CHECK_INT(names.count, 0);
        CHECK_INT(repository_init(t.path, &reason), -EEXIST);
        CHECK_SAYS(reason, "is a repository already");
}

static void a_directory_is_made_where_there_is_none(void) {
        WITH_DIRECTORY(t);
        char path[100];
        Reason reason = REASON_INIT;

        snprintf(path, sizeof path, "%s/a/b", t.path);
        CHECK_INT(repository_init(path, &reason), -ENOENT);
        snprintf(path, sizeof path, "%s/a", t.path);
        CHECK_INT(repository_init(path, &reason), 0);
        CHECK_INT(repository_init(path, &reason), -EEXIST);
}

static void an_interrupted_init_is_finished(void) {
        WITH_DIRECTORY(t);

        CHECK_INT(mkdirat(t.fd, "serials", 0700), 0);
        CHECK_INT(create_file(t.fd, ".new-0000000000000000", "", 0, NULL), 0);
        CHECK_INT(repository_init(t.path, NULL), 0);
}

static void what_holds_something_is_left_alone(void) {
        WITH_DIRECTORY(t);
        Reason reason = REASON_INIT;
        char path[100];

        CHECK_INT(create_file(t.fd, "file", "", 0, NULL), 0);
        CHECK_INT(repository_init(t.path, &reason), -ENOTEMPTY);
        CHECK_SAYS(reason, "not empty");
        snprintf(path, sizeof path, "%s/file", t.path);
        CHECK_INT(repository_init(path, &reason), -ENOTDIR);
}

static void what_is_no_repository_is_told_in_words(void) {
        WITH_DIRECTORY(t);
        CLEANUP(json_decrefp) json_t *object = NULL;
        Repository *repository = NULL;
        Reason reason = REASON_INIT;
        char path[100];

        snprintf(path, sizeof path, "%s/none", t.path);
        CHECK_INT(repository_open(path, 0, &repository, &reason), -ENOENT);
        CHECK_INT(repository_open(t.path, 0, &repository, &reason), -EINVAL);
        CHECK_SAYS(reason, "is not a virtbackupfs repository: make one with 'virtbackupfs init /");
        CHECK_INT(repository_init(t.path, &reason), 0);

        CHECK_INT(sealed_json_read(t.fd, "repository.json", &object, &reason), 0);
        CHECK_INT(json_object_del(object, "checksum"), 0);
        CHECK_INT(json_object_set_new(object, "version", json_integer(2)), 0);
        CHECK_INT(sealed_json_replace(t.fd, "repository.json", object, &reason), 0);
        CHECK_INT(repository_open(t.path, 0, &repository, &reason), -ENOTSUP);
        CHECK_SAYS(reason, "needs a newer version");
        CHECK_INT(json_object_set_new(object, "version", json_integer(1)), 0);
        CHECK_INT(json_object_set_new(object, "features", json_pack("[s]", "shards")), 0);
        CHECK_INT(sealed_json_replace(t.fd, "repository.json", object, &reason), 0);
        CHECK_INT(repository_open(t.path, 0, &repository, &reason), -ENOTSUP);
        CHECK_SAYS(reason, "\"shards\"");
        CHECK_INT(replace_file(t.fd, "repository.json", "{}", 2, &reason), 0);
        CHECK_INT(repository_open(t.path, 0, &repository, &reason), -EBADMSG);
        CHECK_SAYS(reason, "repository.json is damaged");
        CHECK(!repository);
}

int main(void) {
        RUN(an_empty_directory_becomes_a_repository);
        RUN(a_directory_is_made_where_there_is_none);
        RUN(an_interrupted_init_is_finished);
        RUN(what_holds_something_is_left_alone);
        RUN(what_is_no_repository_is_told_in_words);
        return unit_result();
}
