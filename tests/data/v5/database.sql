BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('r0006');
CREATE TABLE api_keys (
	id INTEGER NOT NULL, 
	public VARCHAR(32) NOT NULL, 
	name VARCHAR(64) NOT NULL, 
	secret_sha256 VARCHAR(64) NOT NULL, 
	scopes VARCHAR(64) NOT NULL, 
	created_at DATETIME NOT NULL, 
	expires_at DATETIME, 
	revoked_at DATETIME, 
	CONSTRAINT pk_api_keys PRIMARY KEY (id), 
	CONSTRAINT uq_api_keys_public UNIQUE (public)
);
CREATE TABLE batches (
	id INTEGER NOT NULL, 
	public_id VARCHAR(32) NOT NULL, 
	client_id VARCHAR(64) NOT NULL, 
	items JSON NOT NULL, 
	created_at DATETIME NOT NULL, 
	CONSTRAINT pk_batches PRIMARY KEY (id), 
	CONSTRAINT uq_batches_public_id UNIQUE (public_id)
);
CREATE TABLE closeups (
	job_id INTEGER NOT NULL, 
	detection_id INTEGER NOT NULL, 
	face INTEGER NOT NULL, 
	CONSTRAINT pk_closeups PRIMARY KEY (job_id), 
	CONSTRAINT fk_closeups_job_id_jobs FOREIGN KEY(job_id) REFERENCES jobs (id) ON DELETE CASCADE, 
	CONSTRAINT fk_closeups_detection_id_detections FOREIGN KEY(detection_id) REFERENCES detections (job_id) ON DELETE CASCADE, 
	CONSTRAINT uq_closeups_detection_id_face UNIQUE (detection_id, face)
);
CREATE TABLE deliveries (
	id INTEGER NOT NULL, 
	webhook_id INTEGER NOT NULL, 
	job_public_id VARCHAR(32) NOT NULL, 
	payload JSON NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	attempts INTEGER NOT NULL, 
	due_at DATETIME NOT NULL, 
	status INTEGER, 
	error VARCHAR(300), 
	created_at DATETIME NOT NULL, 
	CONSTRAINT pk_deliveries PRIMARY KEY (id), 
	CONSTRAINT fk_deliveries_webhook_id_webhooks FOREIGN KEY(webhook_id) REFERENCES webhooks (id) ON DELETE CASCADE, 
	CONSTRAINT uq_deliveries_webhook_id_job_public_id UNIQUE (webhook_id, job_public_id)
);
CREATE TABLE detections (
	job_id INTEGER NOT NULL, 
	media_id INTEGER NOT NULL, 
	client_id VARCHAR(64) NOT NULL, 
	display_name VARCHAR(200) NOT NULL, 
	report JSON, 
	prediction VARCHAR(16), 
	fake_probability DOUBLE, 
	model_version VARCHAR(64), 
	notices JSON NOT NULL, reuse_key VARCHAR(64), idempotency_key VARCHAR(64), expires_at DATETIME, 
	CONSTRAINT pk_detections PRIMARY KEY (job_id), 
	CONSTRAINT fk_detections_job_id_jobs FOREIGN KEY(job_id) REFERENCES jobs (id) ON DELETE CASCADE, 
	CONSTRAINT fk_detections_media_id_media FOREIGN KEY(media_id) REFERENCES media (id) ON DELETE RESTRICT
);
INSERT INTO "detections" VALUES(1,1,'255abbf5fd03a7c2c6c7eaec920e7e74','astronaut.png','{"media": {"kind": "image", "format": "png", "mime": "image/png", "width": 320, "height": 320, "size_bytes": 181380, "sha256": "3ac56f7f1b65f36b2d80b3c9d54087d7e6a0fd9241b49419c0ddc2b5186367f1", "duration_s": null, "fps": null, "codec": null}, "verdict": {"outcome": "real", "headline": "Little evidence of manipulation", "probability": 0.14606385674759245, "interval": [0.05563722383530134, 0.18652009521092694], "reasons": [{"code": "below_band", "text": "The probability of manipulation lies below 37\u00a0%."}, {"code": "weightiest_expert", "text": "ViT-B/16, which looks at the global context of face and surroundings, counted most (65\u00a0%); by itself it gives 27\u00a0%."}]}, "faces": [{"id": 0, "verdict": {"outcome": "real", "headline": "Little evidence of manipulation", "probability": 0.14606385674759245, "interval": [0.05563722383530134, 0.18652009521092694], "reasons": [{"code": "below_band", "text": "The probability of manipulation lies below 37\u00a0%."}, {"code": "weightiest_expert", "text": "ViT-B/16, which looks at the global context of face and surroundings, counted most (65\u00a0%); by itself it gives 27\u00a0%."}]}, "experts": [{"name": "cnn", "title": "CNN", "looks_at": "fine pixel patterns and noise residuals", "available": true, "probability": 0.3312405549762824, "weight": 0.28281572461128235, "missing_because": null, "skipped": false}, {"name": "resnext", "title": "ResNeXt-50", "looks_at": "the structure of the face", "available": true, "probability": 0.3268704083633769, "weight": 0.06782854348421097, "missing_because": null, "skipped": false}, {"name": "vit", "title": "ViT-B/16", "looks_at": "the global context of face and surroundings", "available": true, "probability": 0.27056241735183456, "weight": 0.6493557691574097, "missing_because": null, "skipped": false}, {"name": "lstm", "title": "BiLSTM", "looks_at": "consistency from frame to frame (videos only)", "available": false, "probability": null, "weight": 0.0, "missing_because": "It judges videos only: a photo has no course in time.", "skipped": false}], "frames": [{"frame": 0, "time_s": 0.0, "probability": 0.14606385674759245, "box": [117.54, 58.25, 205.88, 177.77]}], "quality": {"face_px": 119.5, "face_px_log2": 6.9011, "sharpness_log": 5.1263, "contrast": 0.2696, "detector_score": 0.9287}}], "deciding_face": 0, "model_version": "v5", "model_sha256": "96e9cd8d5d0050c74a9c846205a215f4ff5c306b6f803e1d9363b91377f5f5f4", "threshold": 0.5, "times_ms": {"decode": 216.1, "detect": 722.2, "experts": 7172.5, "decide": 6.5, "total": 8117.3}, "notices": [], "settings": {"threshold": 0.5, "experts": "cnn,resnext,vit,lstm", "max_faces": 8, "device": "auto", "engine": "openvino", "precision": "cnn=fp32,resnext=bf16,vit=bf16,lstm=bf16", "early_answer": "off", "frames": 16, "min_face_px": 40}, "schema_version": 1, "prediction": "real", "fake_probability": 0.14606385674759245, "real_probability": 0.8539361432524075, "confidence": 0.8539361432524075, "experts": [{"name": "cnn", "title": "CNN", "looks_at": "fine pixel patterns and noise residuals", "available": true, "probability": 0.3312405549762824, "weight": 0.28281572461128235, "missing_because": null, "skipped": false}, {"name": "resnext", "title": "ResNeXt-50", "looks_at": "the structure of the face", "available": true, "probability": 0.3268704083633769, "weight": 0.06782854348421097, "missing_because": null, "skipped": false}, {"name": "vit", "title": "ViT-B/16", "looks_at": "the global context of face and surroundings", "available": true, "probability": 0.27056241735183456, "weight": 0.6493557691574097, "missing_because": null, "skipped": false}, {"name": "lstm", "title": "BiLSTM", "looks_at": "consistency from frame to frame (videos only)", "available": false, "probability": null, "weight": 0.0, "missing_because": "It judges videos only: a photo has no course in time.", "skipped": false}], "timeline": [{"frame": 0, "time_s": 0.0, "probability": 0.14606385674759245}]}','real',1.46063856747592452078e-01,'v5','[]','4c86f1522e1a76a3023154364019417dd337992439fcd7fb106de9806eee9554',NULL,NULL);
INSERT INTO "detections" VALUES(2,2,'255abbf5fd03a7c2c6c7eaec920e7e74','astronaut_blended.png','{"media": {"kind": "image", "format": "png", "mime": "image/png", "width": 320, "height": 320, "size_bytes": 179850, "sha256": "12a0b1c3f0ec8cc55ab4d369084aa165f8480fe094b4dc105fa380d05e109e18", "duration_s": null, "fps": null, "codec": null}, "verdict": {"outcome": "inconclusive", "headline": "Inconclusive", "probability": 0.8839042736423794, "interval": [0.6213329952827316, 0.8839042736423794], "reasons": [{"code": "within_band", "text": "Between 37\u00a0% and 94\u00a0% real and manipulated faces were confused too often on validation data to decide."}, {"code": "weightiest_expert", "text": "ViT-B/16, which looks at the global context of face and surroundings, counted most (66\u00a0%); by itself it gives 90\u00a0%."}, {"code": "experts_disagree", "text": "The networks disagree widely about this face."}]}, "faces": [{"id": 0, "verdict": {"outcome": "inconclusive", "headline": "Inconclusive", "probability": 0.8839042736423794, "interval": [0.6213329952827316, 0.8839042736423794], "reasons": [{"code": "within_band", "text": "Between 37\u00a0% and 94\u00a0% real and manipulated faces were confused too often on validation data to decide."}, {"code": "weightiest_expert", "text": "ViT-B/16, which looks at the global context of face and surroundings, counted most (66\u00a0%); by itself it gives 90\u00a0%."}, {"code": "experts_disagree", "text": "The networks disagree widely about this face."}]}, "experts": [{"name": "cnn", "title": "CNN", "looks_at": "fine pixel patterns and noise residuals", "available": true, "probability": 0.25009947472162253, "weight": 0.26960256695747375, "missing_because": null, "skipped": false}, {"name": "resnext", "title": "ResNeXt-50", "looks_at": "the structure of the face", "available": true, "probability": 0.5464237667904129, "weight": 0.06952311098575592, "missing_because": null, "skipped": false}, {"name": "vit", "title": "ViT-B/16", "looks_at": "the global context of face and surroundings", "available": true, "probability": 0.898004573971965, "weight": 0.6608743071556091, "missing_because": null, "skipped": false}, {"name": "lstm", "title": "BiLSTM", "looks_at": "consistency from frame to frame (videos only)", "available": false, "probability": null, "weight": 0.0, "missing_because": "It judges videos only: a photo has no course in time.", "skipped": false}], "frames": [{"frame": 0, "time_s": 0.0, "probability": 0.8839042736423794, "box": [122.4, 60.44, 208.86, 175.6]}], "quality": {"face_px": 115.2, "face_px_log2": 6.8475, "sharpness_log": 4.8474, "contrast": 0.252, "detector_score": 0.9226}}], "deciding_face": 0, "model_version": "v5", "model_sha256": "96e9cd8d5d0050c74a9c846205a215f4ff5c306b6f803e1d9363b91377f5f5f4", "threshold": 0.5, "times_ms": {"decode": 180.1, "detect": 133.2, "experts": 1552.4, "decide": 0.9, "total": 1866.6}, "notices": [], "settings": {"threshold": 0.5, "experts": "cnn,resnext,vit,lstm", "max_faces": 8, "device": "auto", "engine": "openvino", "precision": "cnn=fp32,resnext=bf16,vit=bf16,lstm=bf16", "early_answer": "off", "frames": 16, "min_face_px": 40}, "schema_version": 1, "prediction": "inconclusive", "fake_probability": 0.8839042736423794, "real_probability": 0.11609572635762055, "confidence": 0.8839042736423794, "experts": [{"name": "cnn", "title": "CNN", "looks_at": "fine pixel patterns and noise residuals", "available": true, "probability": 0.25009947472162253, "weight": 0.26960256695747375, "missing_because": null, "skipped": false}, {"name": "resnext", "title": "ResNeXt-50", "looks_at": "the structure of the face", "available": true, "probability": 0.5464237667904129, "weight": 0.06952311098575592, "missing_because": null, "skipped": false}, {"name": "vit", "title": "ViT-B/16", "looks_at": "the global context of face and surroundings", "available": true, "probability": 0.898004573971965, "weight": 0.6608743071556091, "missing_because": null, "skipped": false}, {"name": "lstm", "title": "BiLSTM", "looks_at": "consistency from frame to frame (videos only)", "available": false, "probability": null, "weight": 0.0, "missing_because": "It judges videos only: a photo has no course in time.", "skipped": false}], "timeline": [{"frame": 0, "time_s": 0.0, "probability": 0.8839042736423794}]}','inconclusive',8.83904273642379445519e-01,'v5','[]','cc757c7679686d6379c2d2f561735c45a62414fa6d9c34a174f8cbbc251c9c14',NULL,NULL);
CREATE TABLE feedback (
	id INTEGER NOT NULL, 
	media_sha256 VARCHAR(64) NOT NULL, 
	client_id VARCHAR(64) NOT NULL, 
	detection_id INTEGER, 
	prediction VARCHAR(16) NOT NULL, 
	fake_probability DOUBLE, 
	model_version VARCHAR(64) NOT NULL, 
	judgement VARCHAR(16) NOT NULL, 
	actual VARCHAR(16) NOT NULL, 
	category VARCHAR(16) NOT NULL, 
	note TEXT, 
	face_labels JSON NOT NULL, 
	trusted BOOLEAN NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	reason TEXT, 
	tried_version VARCHAR(64), 
	learned_version VARCHAR(64), 
	created_at DATETIME NOT NULL, 
	CONSTRAINT pk_feedback PRIMARY KEY (id), 
	CONSTRAINT fk_feedback_detection_id_detections FOREIGN KEY(detection_id) REFERENCES detections (job_id) ON DELETE SET NULL, 
	CONSTRAINT uq_feedback_media_sha256_client_id UNIQUE (media_sha256, client_id)
);
INSERT INTO "feedback" VALUES(1,'3ac56f7f1b65f36b2d80b3c9d54087d7e6a0fd9241b49419c0ddc2b5186367f1','255abbf5fd03a7c2c6c7eaec920e7e74',1,'real',1.46063856747592452078e-01,'v5','correct','real','confirmation','A note of v5''s time: ä','{}',1,'replaced','The same user gave another label later.','v5-r0001',NULL,'2026-11-29 21:23:58.854037');
INSERT INTO "feedback" VALUES(2,'12a0b1c3f0ec8cc55ab4d369084aa165f8480fe094b4dc105fa380d05e109e18','255abbf5fd03a7c2c6c7eaec920e7e74',2,'inconclusive',8.83904273642379445519e-01,'v5','incorrect','fake','other',NULL,'{"0": "fake"}',1,'rejected','A moderator accepted the other label.',NULL,NULL,'2026-11-29 21:23:59.375372');
CREATE TABLE jobs (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	public_id VARCHAR(32) NOT NULL, 
	task VARCHAR(16) NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	stage VARCHAR(16), 
	fraction DOUBLE NOT NULL, 
	attempts INTEGER NOT NULL, 
	lease_until DATETIME, 
	worker_id VARCHAR(64), 
	error_code VARCHAR(64), 
	error_detail TEXT, 
	created_at DATETIME NOT NULL, 
	started_at DATETIME, 
	finished_at DATETIME, payload JSON, result JSON, 
	CONSTRAINT uq_jobs_public_id UNIQUE (public_id)
);
INSERT INTO "jobs" VALUES(1,'a338d70bd860ad6c177bde416d803fce','analyse','done',NULL,1.0,1,NULL,'worker-21260-82405536',NULL,NULL,'2026-11-29 21:23:47.468522','2026-11-29 21:23:47.788278','2026-11-29 21:23:56.152238',NULL,NULL);
INSERT INTO "jobs" VALUES(2,'62ef7ff64c685e675889ca5c22099190','analyse','done',NULL,1.0,1,NULL,'worker-21260-82405536',NULL,NULL,'2026-11-29 21:23:56.570485','2026-11-29 21:23:56.616552','2026-11-29 21:23:58.656256',NULL,NULL);
INSERT INTO "jobs" VALUES(3,'4e2c94b8abfdb778242ef85568f78286','train','done',NULL,1.0,1,NULL,'worker-21260-82405536',NULL,NULL,'2026-11-29 21:25:17.295066','2026-11-29 21:25:17.569272','2026-11-29 21:26:25.124659','{"asked_by": "255abbf5fd03a7c2c6c7eaec920e7e74"}','{"version": "v5-r0001", "base": "v5", "parent": "v5", "promoted": false, "code": "no_correction", "reason": "None of the accepted corrections became right.", "golden": "golden-v5", "old": {"auc": 0.971127, "ece": 0.030588, "accuracy": 0.910638, "slices": {"source dfdc": 0.949531, "real dfdc": 0.970871, "source diffusion_sfhq": 0.98343, "real diffusion_sfhq": 0.943277, "real lfw": 0.988225, "source stylegan1_140k": 0.944353, "real stylegan1_140k": 0.956088, "real video": 0.967793, "manipulation DFDC face swap": 0.953578, "manipulation FLUX1_schnell": 0.998537, "manipulation SDXL": 0.994168, "manipulation StyleGAN1": 0.965632}, "count": 470}, "new": {"auc": 0.972162, "ece": 0.0338, "accuracy": 0.906383, "slices": {"source dfdc": 0.947656, "real dfdc": 0.970313, "source diffusion_sfhq": 0.985087, "real diffusion_sfhq": 0.948004, "real lfw": 0.989565, "source stylegan1_140k": 0.944077, "real stylegan1_140k": 0.957062, "real video": 0.971939, "manipulation DFDC face swap": 0.954983, "manipulation FLUX1_schnell": 0.998699, "manipulation SDXL": 0.994168, "manipulation StyleGAN1": 0.967172}, "count": 470}, "improvements": 0, "regressions": 0, "loss": 0.009535, "accuracy_before": 1.0, "accuracy_after": 1.0, "distance": 0.432197, "items": 1, "stale": 0, "held_out": 0, "damaged": 0, "steps": 500, "seconds": 64.686, "job": "4e2c94b8abfdb778242ef85568f78286", "digest": "cb388c5cf4bd8c8010de1efab4f7c5b312c0e66b3822395bbf2824e45d57ee17", "voices": 1, "base_sha256": "96e9cd8d5d0050c74a9c846205a215f4ff5c306b6f803e1d9363b91377f5f5f4", "serving": "v5", "asked_by": "255abbf5fd03a7c2c6c7eaec920e7e74"}');
CREATE TABLE media (
	id INTEGER NOT NULL, 
	sha256 VARCHAR(64) NOT NULL, 
	size_bytes BIGINT NOT NULL, 
	format VARCHAR(32) NOT NULL, 
	mime VARCHAR(64) NOT NULL, 
	kind VARCHAR(16) NOT NULL, 
	stored_name VARCHAR(128) NOT NULL, 
	created_at DATETIME NOT NULL, 
	CONSTRAINT pk_media PRIMARY KEY (id), 
	CONSTRAINT uq_media_sha256 UNIQUE (sha256)
);
INSERT INTO "media" VALUES(1,'3ac56f7f1b65f36b2d80b3c9d54087d7e6a0fd9241b49419c0ddc2b5186367f1',181380,'png','image/png','image','3a/3ac56f7f1b65f36b2d80b3c9d54087d7e6a0fd9241b49419c0ddc2b5186367f1-20db1258','2026-11-29 21:23:47.434529');
INSERT INTO "media" VALUES(2,'12a0b1c3f0ec8cc55ab4d369084aa165f8480fe094b4dc105fa380d05e109e18',179850,'png','image/png','image','12/12a0b1c3f0ec8cc55ab4d369084aa165f8480fe094b4dc105fa380d05e109e18-eac3f0b2','2026-11-29 21:23:56.570010');
CREATE TABLE reviewed_media (
	media_sha256 VARCHAR(64) NOT NULL, 
	phash VARCHAR(16), 
	domain_reason TEXT, 
	features JSON, 
	experts VARCHAR(64), 
	examined_at DATETIME, 
	decision VARCHAR(16), 
	decision_label VARCHAR(16), 
	decision_note TEXT, 
	decided_by VARCHAR(64), 
	decided_at DATETIME, 
	CONSTRAINT pk_reviewed_media PRIMARY KEY (media_sha256)
);
INSERT INTO "reviewed_media" VALUES('3ac56f7f1b65f36b2d80b3c9d54087d7e6a0fd9241b49419c0ddc2b5186367f1','24cb473292cf6738',NULL,'{"deciding": ""}','b7de2625fa619b03bd818cb4d5f035a1f2bb89828a052c9a41b9d759b14628a9','2026-11-29 21:25:15.918640','accept','real','seen','255abbf5fd03a7c2c6c7eaec920e7e74','2026-11-29 21:23:59.518488');
INSERT INTO "reviewed_media" VALUES('12a0b1c3f0ec8cc55ab4d369084aa165f8480fe094b4dc105fa380d05e109e18','24cb4f3292cf6718',NULL,'{"deciding": "", "0": ""}','b7de2625fa619b03bd818cb4d5f035a1f2bb89828a052c9a41b9d759b14628a9','2026-11-29 21:26:36.356866',NULL,NULL,NULL,NULL,NULL);
CREATE TABLE sessions (
	token_sha256 VARCHAR(64) NOT NULL, 
	public VARCHAR(32) NOT NULL, 
	ends_at DATETIME NOT NULL, 
	CONSTRAINT pk_sessions PRIMARY KEY (token_sha256)
);
CREATE TABLE webhooks (
	id INTEGER NOT NULL, 
	public_id VARCHAR(32) NOT NULL, 
	client_id VARCHAR(64) NOT NULL, 
	url VARCHAR(2000) NOT NULL, 
	secret VARCHAR(64) NOT NULL, 
	created_at DATETIME NOT NULL, 
	CONSTRAINT pk_webhooks PRIMARY KEY (id), 
	CONSTRAINT uq_webhooks_public_id UNIQUE (public_id)
);
CREATE TABLE workers (
	id VARCHAR(64) NOT NULL, 
	pid INTEGER NOT NULL, 
	started_at DATETIME NOT NULL, 
	seen_at DATETIME NOT NULL, 
	facts JSON NOT NULL, 
	CONSTRAINT pk_workers PRIMARY KEY (id)
);
CREATE INDEX ix_jobs_state_id ON jobs (state, id);
CREATE INDEX ix_detections_media_id ON detections (media_id);
CREATE INDEX ix_detections_prediction ON detections (prediction);
CREATE INDEX ix_detections_client_id ON detections (client_id);
CREATE INDEX ix_jobs_state_task ON jobs (state, task);
CREATE UNIQUE INDEX uq_jobs_open_task ON jobs (task) WHERE task NOT IN ('analyse', 'explain') AND state IN ('queued', 'running');
CREATE INDEX ix_feedback_detection_id ON feedback (detection_id);
CREATE INDEX ix_feedback_state ON feedback (state);
CREATE INDEX ix_detections_reuse_key ON detections (reuse_key);
CREATE UNIQUE INDEX uq_detections_client_id_idempotency_key ON detections (client_id, idempotency_key);
CREATE INDEX ix_batches_client_id ON batches (client_id);
CREATE INDEX ix_webhooks_client_id ON webhooks (client_id);
CREATE INDEX ix_deliveries_state_due_at ON deliveries (state, due_at);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('jobs',3);
COMMIT;
