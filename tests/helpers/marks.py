"""Which tests are what kind: conftest.py marks every test by its file."""

import pathlib

TESTS = pathlib.Path(__file__).parents[1]
# theorem: numbers against a law, an order, a closed form or a golden file.
# contract: what parts promise each other, whatever the numbers.
# refusal: what is odd ends in one line and leaves no trace.
# process: verbs from end to end, in processes that stop, die or meet.
# A test that takes minutes is marked `slow` where it stands.
FILES = {
  "theorem": """
    test_ema test_optim adversarial/test_ada adversarial/test_adversarial adversarial/test_noising
    data/test_crop diffusion/test_diffusion diffusion/test_golden_diffusion
    diffusion/test_guidance diffusion/test_importance diffusion/test_interpolants
    diffusion/test_repaint diffusion/test_inverse diffusion/test_inversion
    diffusion/test_likelihood
    diffusion/test_samplers diffusion/test_times diffusion/test_unipc diffusion/test_time_pairs
    evaluation/test_gaussian evaluation/test_perceptual evaluation/test_scores
    evaluation/test_texture interop/test_names
    metrics/test_image_quality
    metrics/test_copies metrics/test_distances metrics/test_inception_score metrics/test_kid
    metrics/test_am_score metrics/test_ndb audio/test_patches nets/test_vggish
    metrics/test_mode_coverage metrics/test_prdc nets/test_attention report/test_pareto
    nets/test_biggan nets/test_dinov2 nets/test_dit nets/test_gan_nets nets/test_inception
    nets/test_nets nets/test_stylegan2 models/test_codec models/test_vqvae
    models/test_autoregressive models/test_hierarchy nets/test_ldm nets/test_pixelsnail
    models/test_mean_flow nets/test_imf_dit
    audio/test_griffin_lim audio/test_mel data/test_clips metrics/test_sound_quality
    nets/test_diffwave nets/test_hifigan nets/test_strided nets/test_transposed
    nets/test_tpu_attention nets/test_wavegan study/test_mos
    diffusion/test_denoising_chain
    nets/test_ddgan nets/test_edm2 nets/test_translators models/test_pix2pix
    models/test_cycle_gan sampling/test_any_denoiser diffusion/test_attribute_guidance
    models/test_gan_control
    adversarial/test_directions metrics/test_detection diffusion/test_simplex models/test_anogan
    tasks/test_edit_guided
  """,
  "contract": """
    test_config test_core test_files test_results test_sharding bench/test_bench
    bucket/test_objects bucket/test_lease bucket/test_checkpoints bucket/test_s3
    bucket/test_packed bucket/test_parts
    bucket/test_across
    checkpoint/test_fingerprint checkpoint/test_manager checkpoint/test_pretrained
    checkpoint/test_implied
    compare/test_budget compare/test_sound data/test_clip_survey data/test_labelled_sets
    report/test_diagnosis
    report/test_page report/test_page_looks compare/test_rounds report/test_stability
    report/test_trilemma_page
    report/test_verdict data/test_catalogue data/test_class_names data/test_folder
    data/test_holdout data/test_phash
    data/test_photos data/test_pipeline data/test_sources data/test_survey
    data/test_splits data/test_subset data/test_stacked diffusion/test_diffusion_promises
    evaluation/test_bits_per_dim evaluation/test_cards evaluation/test_collect
    evaluation/test_periodic evaluation/test_statistics sampling/test_sampler
    evaluation/test_audio_distance evaluation/test_clip_samples
    evaluation/test_images evaluation/test_judge evaluation/test_learned
    evaluation/test_reconstruction evaluation/test_reference
    evaluation/test_restoration evaluation/test_translator_scores
    evaluation/test_vocoding evaluation/test_weights interop/test_infer
    interop/test_interop_biggan interop/test_nvlabs interop/test_published
    interop/test_tensor_files models/test_cascade models/test_classifier
    models/test_gan models/test_guided models/test_latent models/test_models monitor/test_goodput
    models/test_consistency
    data/test_pairs tasks/test_translate convert/test_translator_workdir
    monitor/test_health monitor/test_log monitor/test_pictures nets/test_remat
    nets/test_autoencoder nets/test_gan_sizes nets/test_image_sizes plan/test_hlo plan/test_plan
    models/test_denoising_gan sampling/test_surface sampling/test_worked_examples
    convert/test_stablehlo
    models/test_control_game tasks/test_control tasks/test_memorisation
    sampling/test_encode sampling/test_latents sampling/test_upscale sampling/test_vocode
    study/test_ratings study/test_study style/test_layers style/test_style
  """,
  "refusal": """
    test_refusals test_strangers checkpoint/test_checkpoint_damage
    checkpoint/test_checkpoint_foreign data/test_arrayfile data/test_recordings interop/test_hostile
  """,
  "process": """
    bench/test_bench_pod bucket/test_training bucket/test_verbs
    test_cli test_foreign test_launch test_sample test_sample_guided test_train
    checkpoint/test_checkpoint_crash checkpoint/test_lock compare/test_compare
    compare/test_choose compare/test_modes compare/test_sweep
    compare/test_trilemma convert/test_codec_workdir convert/test_convert
    convert/test_dit_workdir convert/test_latent_workdir convert/test_ddgan_workdir
    convert/test_edm2_workdir
    convert/test_prior_workdir convert/test_vocoder_workdir data/test_points
    distributed/test_codecs distributed/test_cores
    distributed/test_cuda_lowering distributed/test_elastic distributed/test_join
    distributed/test_launchers distributed/test_lobby
    distributed/test_storm distributed/test_trajectories distributed/test_verbs_together
    sampling/test_resumable
    distributed/test_week
    distributed/test_watchdog evaluation/test_several_processes evaluation/test_evaluate
    style/test_readme study/test_study_page tasks/test_edit tasks/test_anomaly
    tasks/test_augment tasks/test_edit_measure tasks/test_task_devices
  """,
}
MARK = {TESTS / f"{file}.py": mark for mark, files in FILES.items() for file in files.split()}
