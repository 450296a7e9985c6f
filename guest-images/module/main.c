// SPDX-License-Identifier: GPL-2.0
/* The device node: parses a command, runs its verb, keeps the result for reading. */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "tdharness.h"
#include "trace.h"

struct tdh_file {
	struct mutex lock;
	struct tdh_request req;
	size_t read;
};

static const struct {
	const char *name;
	int (*run)(struct tdh_request *req);
} verbs[] = {
	{ "info", tdh_info },	      { "mark", tdh_mark },	    { "convert", tdh_convert },
	{ "parallel", tdh_parallel }, { "coherent", tdh_coherent }, { "stream", tdh_stream },
	{ "atomic", tdh_atomic },     { "edu", tdh_edu },	    { "fault", tdh_fault },
	{ "probe", tdh_probe },	      { "trace", tdh_trace },	    { "skip", tdh_skip },
};

const char *tdh_word(struct tdh_request *req, const char *key, const char *otherwise)
{
	for (unsigned int i = 0; i < req->args; i++) {
		if (strcmp(req->arg[i].key, key))
			continue;
		req->arg[i].used = true;
		return req->arg[i].value;
	}
	return otherwise;
}

int tdh_number(struct tdh_request *req, const char *key, u64 otherwise, u64 max, u64 *value)
{
	const char *word = tdh_word(req, key, NULL);
	char *end;

	*value = otherwise;
	if (!word)
		return 0;
	*value = memparse(word, &end);
	if (end == word || *end)
		return tdh_fail(req, -EINVAL, "%s=%s is no number", key, word);
	if (*value > max)
		return tdh_fail(req, -EINVAL, "%s=%s is more than %llu", key, word, max);
	return 0;
}

void tdh_report(struct tdh_request *req, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	req->length +=
		vscnprintf(req->result + req->length, TDH_RESULT_MAX - req->length, format, args);
	va_end(args);
}

int tdh_fail(struct tdh_request *req, int error, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vscnprintf(req->reason, sizeof(req->reason), format, args);
	va_end(args);
	return error;
}

static int parse(struct tdh_request *req, char **verb)
{
	char *rest = strim(req->command);
	char *word;

	*verb = strsep(&rest, " ");
	while ((word = strsep(&rest, " "))) {
		char *value = strchr(word, '=');

		if (!*word)
			continue;
		if (!value)
			return tdh_fail(req, -EINVAL, "%s is no key=value", word);
		if (req->args == TDH_ARGS_MAX)
			return tdh_fail(req, -E2BIG, "more than %d arguments", TDH_ARGS_MAX);
		*value++ = '\0';
		req->arg[req->args++] = (struct tdh_arg){ .key = word, .value = value };
	}
	return 0;
}

static int run(struct tdh_request *req)
{
	char *verb;
	int error = parse(req, &verb);

	if (error)
		return error;
	for (unsigned int i = 0; i < ARRAY_SIZE(verbs); i++) {
		if (strcmp(verbs[i].name, verb))
			continue;
		error = verbs[i].run(req);
		for (unsigned int j = 0; !error && j < req->args; j++)
			if (!req->arg[j].used)
				return tdh_fail(req, -EINVAL, "%s takes no %s=", verb,
						req->arg[j].key);
		return error;
	}
	return tdh_fail(req, -EINVAL, "no verb %s", verb);
}

static ssize_t tdh_file_write(struct file *file, const char __user *data, size_t size, loff_t *pos)
{
	struct tdh_file *state = file->private_data;
	struct tdh_request *req = &state->req;
	int error;

	if (size >= TDH_COMMAND_MAX)
		return -E2BIG;
	if (mutex_lock_interruptible(&state->lock))
		return -EINTR;
	memset(req, 0, sizeof(*req));
	state->read = 0;
	error = copy_from_user(req->command, data, size) ? -EFAULT : run(req);
	if (!error)
		tdh_report(req, "ok\n");
	else
		tdh_report(req, "failed: %s (%d)\n", *req->reason ? req->reason : "error", error);
	mutex_unlock(&state->lock);
	return error ?: size;
}

static ssize_t tdh_file_read(struct file *file, char __user *data, size_t size, loff_t *pos)
{
	struct tdh_file *state = file->private_data;
	ssize_t left;

	if (mutex_lock_interruptible(&state->lock))
		return -EINTR;
	left = min(size, state->req.length - state->read);
	if (copy_to_user(data, state->req.result + state->read, left))
		left = -EFAULT;
	else
		state->read += left;
	mutex_unlock(&state->lock);
	return left;
}

static int tdh_file_open(struct inode *inode, struct file *file)
{
	struct tdh_file *state = kvzalloc(sizeof(*state), GFP_KERNEL);

	if (!state)
		return -ENOMEM;
	mutex_init(&state->lock);
	file->private_data = state;
	return stream_open(inode, file);
}

static int tdh_file_release(struct inode *inode, struct file *file)
{
	kvfree(file->private_data);
	return 0;
}

static const struct file_operations tdh_file_ops = {
	.owner = THIS_MODULE,
	.open = tdh_file_open,
	.release = tdh_file_release,
	.read = tdh_file_read,
	.write = tdh_file_write,
};

static struct miscdevice tdh_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "tdharness",
	.mode = 0600,
	.fops = &tdh_file_ops,
};

static int __init tdh_init(void)
{
	int error = tdh_dma_init();

	if (error)
		return error;
	error = tdh_edu_init();
	if (error)
		goto dma;
	error = misc_register(&tdh_device);
	if (error)
		goto edu;
	tdh_log_init();
	return 0;
edu:
	tdh_edu_exit();
dma:
	tdh_dma_exit();
	return error;
}

static void __exit tdh_exit(void)
{
	misc_deregister(&tdh_device);
	tdh_trace_exit();
	tdh_log_exit();
	tdh_edu_exit();
	tdh_dma_exit();
}

module_init(tdh_init);
module_exit(tdh_exit);
MODULE_DESCRIPTION("tdharness: private/shared conversions, DMA and planted faults on command");
MODULE_LICENSE("GPL");
